"""The Python API: submit a training, watch it, stop it, resume it, use its model.

from ktrdr import Client, load_model
op = Client().train("strategies/trend_follower.yaml", symbols=["EURUSD"], timeframes=["5m"])
op.wait()
probabilities = load_model("trend_follower").predict(bars)
"""

from __future__ import annotations

from ktrdr.client.client import Client, load_model
from ktrdr.client.operation import Operation

__all__ = ["Client", "Operation", "load_model"]
