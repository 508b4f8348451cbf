"""Small labelled folders in every layout, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import polars as pl

N, TRAIN = 700, 300
T0 = 1_772_323_200_000
SPAN = (550, 575)


def values(seed: int, *, odd: bool = True) -> np.ndarray:
    made = np.sin(np.arange(N) / 5) + np.random.default_rng(seed).normal(0, 0.05, N)
    if odd:
        made[SPAN[0] : SPAN[1]] += 4.0
    return made


def labels(*, odd: bool = True) -> np.ndarray:
    made = np.zeros(N, np.int64)
    made[SPAN[0] : SPAN[1]] = odd
    return made


def times() -> pl.Series:
    return pl.Series("timestamp", T0 + np.arange(N) * 300_000).cast(pl.Datetime("ms"))


def index_folder(folder: Path) -> Path:
    (folder / "web").mkdir(parents=True)
    rows = []
    for seed, name in enumerate(("cpu", "quiet")):
        odd = name == "cpu"
        frame = pl.DataFrame({"timestamp": times(), "v0": values(seed, odd=odd), "v1": 0.0})
        frame.with_columns(label=labels(odd=odd)).write_parquet(folder / f"web/{name}.parquet")
        rows.append((name, "web", f"web/{name}.parquet", TRAIN, 31.0, "ms", "v0"))
    names = ["series", "set", "file", "train_end", "window", "ts_kind", "columns"]
    pl.DataFrame(rows, schema=names, orient="row").write_csv(folder / "index.csv")
    return folder


def nab_folder(folder: Path) -> Path:
    (folder / "data" / "realKnown").mkdir(parents=True)
    (folder / "labels").mkdir()
    shown = times().dt.strftime("%Y-%m-%d %H:%M:%S")
    pl.DataFrame({"timestamp": shown, "value": values(0)}).write_csv(
        folder / "data/realKnown/taxi.csv"
    )
    span = [f"{shown[SPAN[0]]}.000000", f"{shown[SPAN[1] - 1]}.000000"]
    windows = {"realKnown/taxi.csv": [span], "realKnown/not_there.csv": []}
    (folder / "labels" / "combined_windows.json").write_bytes(orjson.dumps(windows))
    return folder


def tsb_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for dims, name in (
        (1, "001_NAB_id_1_Web_tr_300_1st_550.csv"),
        (2, "002_SMD_id_2_tr_250_1st_550.csv"),
    ):
        frame = pl.DataFrame({f"Data{d}": values(d) for d in range(dims)})
        frame.with_columns(Label=labels()).write_csv(folder / name)
    return folder


def plain_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    frame = pl.DataFrame({"timestamp": times(), "cpu": values(0), "is_anomaly": labels()})
    frame.write_csv(folder / "web-1.csv")
    (folder / "README.txt").write_text("not a series")
    return folder


FOLDERS = {
    "index": index_folder,
    "nab": nab_folder,
    "tsb-ad": tsb_folder,
    "plain": plain_folder,
}
