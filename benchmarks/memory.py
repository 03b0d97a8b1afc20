"""Peak memory of a step: what it has allocated at once, above what was there before."""

from collections.abc import Callable

import torch


def peak_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Bytes of tensors that a step holds at its highest, those it leaves behind included.

    Args:
        step: What to measure; it is called once before, to warm up.
        device: Where it runs. On CPU the allocations are those torch's profiler records.

    Returns:
        The peak, without what was allocated before the step.
    """
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    held = highest = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        held += size
        highest = max(highest, held)
    return highest
