"""Why a driver is gone, as Ray 2.60 says it: errors as they came, shortened."""

from __future__ import annotations

import pytest
from ray.core.generated.common_pb2 import (  # type: ignore[attr-defined]
    ActorDiedErrorContext,
    NodeDeathInfo,
)
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError, RayError

from ktrdr.operations.types import FailureReason
from ktrdr.supervisor.ray_drivers import loss_of

MEMORY = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP:"
    " 192.0.2.2, ID: 703ebddc) was 22.97GB used / 23.54GB limit (0.957394)\n"
    "OOM kill reason: Memory usage exceeded threshold\n"
    "Top 10 memory users: PID\tMEM(GB)\tCOMMAND\n"
    "Refer to the documentation on how to address the out of memory issue"
)
PROCESS = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker"
    " exit detail: Worker unexpectedly exits with a connection error code 2. End of file. Some"
    " common causes include: (1) the process was killed by the OOM killer due to high memory usage"
)
NODE = (
    "The actor died because its node has died. Node Id: 5e9ac243\n\tthe actor's node was terminated"
    " unexpectedly: health check failed due to missing too many heartbeats"
)
DRAINED = (
    "The actor died because its node has died. Node Id: 5e9ac243\n\tthe actor's node was preempted:"
    " spot instance taken back"
)


def died(said: str, preempted: bool = False) -> ActorDiedError:
    context = ActorDiedErrorContext(
        error_message=said,
        actor_id=bytes(16),
        class_name="Driver",
        name="training:op_training_20260102_030405_0123abcd:1",
        node_ip_address="192.0.2.2",
        pid=17423,
    )
    if preempted:
        context.node_death_info.reason = NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED
    return ActorDiedError(context)


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (OutOfMemoryError(MEMORY), FailureReason.OUT_OF_MEMORY, MEMORY.splitlines()[0]),  # type: ignore[no-untyped-call]
        (died(PROCESS), FailureReason.DRIVER_LOST, PROCESS),
        (died(NODE), FailureReason.WORKER_LOST, NODE.splitlines()[1].strip()),
        (died(DRAINED, True), FailureReason.NODE_PREEMPTED, DRAINED.splitlines()[1].strip()),
        (
            NodeDiedError("node 5e9ac243 is dead"),  # type: ignore[no-untyped-call]
            FailureReason.WORKER_LOST,
            "node 5e9ac243 is dead",
        ),
        (ActorDiedError(), FailureReason.DRIVER_LOST, ActorDiedError.BASE_ERROR_MSG),
        (RayError(), FailureReason.DRIVER_LOST, "RayError"),
    ],
)
def test_the_reason_is_what_ray_says(error: RayError, reason: FailureReason, message: str) -> None:
    lost = loss_of(error)
    assert (lost.reason, lost.message) == (reason, f"the driver is gone: {message}")
