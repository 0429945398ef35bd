"""Migration of older strategy files to the grammar; comments and layout are kept."""
