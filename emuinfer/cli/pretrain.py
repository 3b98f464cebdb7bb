"""`emuinfer pretrain`: train a transformer on spectra of simple physics that are made as it goes."""

from ..files import use_compilation_cache
from . import options_training as o
from .options import WindowName, telling


def pretrain(
    output: o.Output,
    steps: o.Steps = 100_000,
    warmup: o.Warmup = 500,
    learning_rate: o.ScaledRate = 8e-3,
    spectra: o.Spectra = 32,
    pixels: o.Pixels = 1024,
    ring: o.Ring = 2048,
    chunk: o.Chunk = 16,
    renew: o.Renew = 4,
    width: o.Width = 64,
    depth: o.Blocks = 2,
    heads: o.Heads = 4,
    tokens: o.Tokens = 16,
    optimiser: o.Optimiser = "muon",
    precision: o.Precision = "float32",
    devices: o.Devices = 1,
    every: o.Every = 500,
    validation: o.ValidationFile = None,
    init: o.Init = None,
    window: WindowName = None,
    seed: o.TrainSeed = 0,
    overwrite: o.Overwrite = False,
    quiet: o.Quiet = False,
):
    """Train an emulator on endless LTE spectra, made on the device while it learns: the first stage, for a GPU.

    Started again after an interruption, it goes on from the last checkpoint, with the spectra it would have seen. Fine-tune the
    result with `emuinfer train GRID --init OUTPUT`.

    \b
    Examples:
      emuinfer pretrain --precision bfloat16 --width 128 --depth 4 --output lte-emulator
      emuinfer pretrain --steps 2000 --ring 64 --renew 40 --width 32 --output small        (on a laptop)
    """
    stem = o.stem_of(output, overwrite)
    use_compilation_cache()
    from ..emulators.training import TrainConfig, pretrain_on_window

    sizes = {"width": width, "depth": depth, "heads": heads, "tokens": tokens}
    config = TrainConfig(
        steps=steps, warmup=warmup, learning_rate=learning_rate, spectra=spectra, pixels=pixels, optimiser=optimiser,
        base_width=32, base_depth=2, precision=precision, devices=devices, seed=seed, validate_every=every, checkpoint_every=every,
    )  # fmt: skip
    directory = stem.with_name(stem.name + ".run")
    with telling(f"Start the same command again to go on from the last checkpoint in {directory}."):
        emulator, card = pretrain_on_window(
            window, init, config, sizes=sizes, ring=ring, renew=renew, chunk=chunk, validation=validation,
            directory=directory, progress=not quiet,
        )  # fmt: skip
    o.save(emulator, stem, card)
