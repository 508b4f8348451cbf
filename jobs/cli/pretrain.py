"""Commands that make networks: pretrain, export, convert; and the corpus they learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import examples

pretrain = typer.Typer(
    no_args_is_help=True, help="Pretrain a detector's network on synthetic series."
)
corpus = typer.Typer(
    no_args_is_help=True, help="Look at the synthetic series that networks are pretrained on."
)
Out = Annotated[Path, typer.Option("--out", "-o", help="Directory to write to.")]
Seed = Annotated[int, typer.Option(help="Equal seeds draw equal series.")]


@pretrain.command(
    epilog=examples(
        "streamad pretrain timercd -o models/rcd",
        "streamad pretrain timercd -o models/rcd --minutes 120 --threads 2",
        "streamad pretrain timercd -o models/more --start models/rcd --rate 4e-4 --minutes 60",
        "streamad pretrain timercd -o models/rcd --size paper --device cuda --half --workers 12",
    )
)
def timercd(  # noqa: PLR0913 - one argument an option
    *,
    out: Out,
    size: Annotated[
        str, typer.Option(help="small (0.95 million parameters), or paper (37 million).")
    ] = "small",
    steps: Annotated[int, typer.Option(help="Training steps.")] = 16_000,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this long, over all runs, if steps remain.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    length: Annotated[int, typer.Option(help="Longest series, in samples.")] = 1024,
    samples: Annotated[int, typer.Option(help="Values per batch, over all its series.")] = 16_384,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or another device of torch.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of torch on the CPU.")] = 1,
    workers: Annotated[
        int, typer.Option(help="Processes that draw series; 0: a thread, enough for a CPU.")
    ] = 0,
    half: Annotated[
        bool, typer.Option("--half", help="Compute in bfloat16; faster on a GPU alone.")
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(help="Begin with the weights in this directory, or with the 'shipped' ones."),
    ] = None,
) -> None:
    """Train TimeRCD on synthetic series with labelled anomalies; no data is needed.

    Run it again with the same --out to resume from the last checkpoint (steps, minutes, device,
    threads, workers and half may change). Validation, by VUS-PR on held-out synthetic series, is
    reported every 500 steps and kept in log.jsonl. At the end the directory holds what serves:
    set detector.params.model of the detector timercd to it.
    """
    from jobs.pretrain.command import Asked, pretrain_timercd

    asked = Asked(
        size=size,
        steps=steps,
        minutes=minutes,
        rate=rate,
        length=length,
        samples=samples,
        seed=seed,
        device=device,
        threads=threads,
        workers=workers,
        half=half,
        start=start,
    )
    pretrain_timercd(out, asked)


@pretrain.command(
    epilog=examples(
        "streamad pretrain export models/rcd -o models/rcd-now",
        "streamad pretrain export models/more --average shipped -o models/mean",
    )
)
def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A directory of 'streamad pretrain timercd', or its checkpoint.")
    ],
    *,
    out: Out,
    average: Annotated[
        Path | None,
        typer.Option(
            help="Write the mean of the weights and of those in this directory, or of the "
            "'shipped' ones; it often ranks better than either where one training began with "
            "the other's weights."
        ),
    ] = None,
) -> None:
    """Write what serves from a checkpoint, also while the training runs."""
    from jobs.pretrain.command import export_checkpoint

    export_checkpoint(checkpoint, out, average=average)


@pretrain.command(
    epilog=examples("streamad pretrain convert pretrain_checkpoint_best_uni.pth -o models/official")
)
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint (.pth) the authors of TimeRCD publish.")
    ],
    *,
    out: Out,
) -> None:
    """Write what serves from an official TimeRCD checkpoint.

    The file is a pickle; it is read as weights only, and no code in it runs.
    """
    from jobs.pretrain.command import convert_checkpoint

    convert_checkpoint(checkpoint, out)


@corpus.command(epilog=examples("streamad corpus draw -o corpus.html --samples 4 --seed 7"))
def draw(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, .html.")],
    samples: Annotated[int, typer.Option(help="Series per kind of anomaly.")] = 3,
    length: Annotated[int, typer.Option(help="Samples per series.")] = 512,
    seed: Seed = 0,
    published: Annotated[
        bool, typer.Option("--published", help="Draw from the ranges of the published corpus.")
    ] = False,
) -> None:
    """Draw synthetic series of all 41 kinds of anomalies, with labels and clean twins."""
    from jobs.pretrain.command import draw_corpus

    draw_corpus(out, seed=seed, length=length, samples=samples, published=published)
