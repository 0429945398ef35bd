"""Pure PyTorch training: models, batches, the loop, its state and its exact resume."""

import os

# Before torch computes anything: without it MKL chooses kernels in which a row's result depends on
# its position in the batch, so that a prediction would depend on the rows beside it. The strict
# mode is documented to give the same bits for any alignment, position and number of threads, and
# costs nothing measurable at the sizes trained here. Elsewhere than on MKL it has no effect.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
