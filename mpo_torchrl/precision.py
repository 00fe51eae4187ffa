"""Which precision scores actions fastest without changing what is learnt."""

from __future__ import annotations

from functools import lru_cache

import torch


def fast_scoring_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The precision of the hidden layers when the E-step scores actions.

    bfloat16 if the parameters are float32 and the device multiplies bfloat16 matrices in
    hardware: a CPU with AVX512-BF16 or AMX-BF16, a CUDA device of compute capability 8 or
    above. Elsewhere bfloat16 is emulated and slower, so the parameters' own precision is kept;
    so it is for float64, which somebody chose for its digits.

    Args:
        device (torch.device): where the critics are.
        dtype (torch.dtype): the precision of their parameters.

    Returns:
        torch.dtype: bfloat16, or ``dtype`` itself.

    Examples:
        >>> import torch
        >>> from mpo_torchrl.precision import fast_scoring_dtype
        >>> fast_scoring_dtype(torch.device("cpu"), torch.float64)
        torch.float64
    """
    if dtype == torch.float32 and _multiplies_bfloat16(device):
        return torch.bfloat16
    return dtype


@lru_cache
def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False
