"""Where labelled series come from, and how to lay their files: ``streamad datasets``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A public set of labelled series; layout : one of those of `LAYOUT_TEXTS`."""

    name: str
    what: str
    origin: str
    licence: str
    layout: str
    lay: str


DATASETS = (
    Dataset(
        name="NAB",
        what="58 metrics, mostly every 5 minutes, with windows around anomalies",
        origin="https://github.com/numenta/NAB",
        licence="MIT; older versions AGPL-3.0",
        layout="nab",
        lay="clone it; DATA is the clone: data/ and labels/combined_windows.json",
    ),
    Dataset(
        name="TSB-AD-U, TSB-AD-M",
        what="870 and 200 curated series of 40 sources",
        origin="https://www.thedatum.org/datasets/TSB-AD-U.zip and TSB-AD-M.zip",
        licence="code Apache-2.0; each source has its own",
        layout="tsb-ad",
        lay="unpack; DATA is the folder of CSV files, names unchanged: _tr_N_ is the training part",
    ),
    Dataset(
        name="UCR anomaly archive",
        what="250 series with one anomaly each",
        origin="https://www.cs.ucr.edu/~eamonn/time_series_data_2018",
        licence="none stated",
        layout="index",
        lay="make a table per series: value, label; the file name has train_end, begin and end",
    ),
    Dataset(
        name="SMAP, MSL",
        what="81 telemetry channels of two spacecraft",
        origin="https://github.com/khundman/telemanom",
        licence="Caltech/JPL, like BSD",
        layout="index",
        lay="join train and test arrays; labels are in labeled_anomalies.csv",
    ),
    Dataset(
        name="AIOps 2018 KPI",
        what="29 indicators of web services, every minute or 5 minutes",
        origin="https://github.com/NetManAIOps/KPI-Anomaly-Detection",
        licence="MIT",
        layout="plain",
        lay="a file per KPI ID: timestamp, value, label",
    ),
    Dataset(
        name="cloud monitoring",
        what="67 service metrics, hourly",
        origin="https://github.com/microsoft/cloud-monitoring-dataset",
        licence="MIT",
        layout="plain",
        lay="clone it; DATA is the folder of CSV files",
    ),
    Dataset(
        name="SMD, ASD",
        what="server machines, 38 and 19 variates",
        origin="https://github.com/NetManAIOps/OmniAnomaly, https://github.com/zhhlee/InterFusion",
        licence="MIT",
        layout="index",
        lay="join train, test and test_label of each machine",
    ),
    Dataset(
        name="SKAB",
        what="34 runs of a pump on a test bench, 8 variates",
        origin="https://github.com/waico/SKAB",
        licence="GPL-3.0",
        layout="plain",
        lay="a file per run, ';' between cells; --label anomaly",
    ),
    Dataset(
        name="PetShop",
        what="metrics of microservices under faults",
        origin="https://github.com/amazon-science/petshop-root-cause-analysis",
        licence="CC-BY-4.0",
        layout="index",
        lay="a column per service and metric; label the times of the faults",
    ),
    Dataset(
        name="SVDB",
        what="heart beats",
        origin="https://physionet.org/content/svdb/1.0.0/",
        licence="ODC-By 1.0",
        layout="index",
        lay="read with wfdb; label the beats that are not normal",
    ),
    Dataset(
        name="MGAB",
        what="ten Mackey-Glass series with spliced anomalies that eyes miss",
        origin="https://github.com/MarkusThill/MGAB",
        licence="CC0",
        layout="plain",
        lay="clone it; keep the columns value and is_anomaly",
    ),
)

LAYOUT_TEXTS = {
    "nab": "data/<group>/<name>.csv (timestamp, value) and labels/combined_windows.json; the "
    "first 15 % of a series, at most 750 rows, is learned",
    "tsb-ad": "<n>_<source>_..._tr_<train>_....csv: columns of values and Label",
    "index": "index.csv with a row per series: file (below the folder), train_end; optional: set, "
    "series, window (rows, for VUS), ts_kind (index: times are row numbers), columns (with spaces "
    "between); each file has values and a column of labels",
    "plain": "any table below a folder, or one file, with a column of labels (label, is_anomaly "
    "... or --label NAME) of 0 and 1; --train-end N rows are learned, else 15 %, at most 750",
}


def print_datasets(*, as_json: bool) -> None:
    """Print them to standard output."""
    if as_json:
        made = {"datasets": [asdict(one) for one in DATASETS], "layouts": LAYOUT_TEXTS}
        sys.stdout.write(json.dumps(made, indent=1) + "\n")
        return
    from rich.console import Console

    console = Console(highlight=False)
    for one in DATASETS:
        console.print(f"[bold]{one.name}[/bold]: {one.what}")
        console.print(f"  from     {one.origin}", soft_wrap=True)
        console.print(f"  licence  {one.licence}", soft_wrap=True)
        console.print(f"  layout   {one.layout}: {one.lay}\n", soft_wrap=True)
    console.print("[bold]layouts[/bold]")
    for name, text in LAYOUT_TEXTS.items():
        console.print(f"  {name:8} {text}", soft_wrap=True)
    console.print("\nstreamad evaluate reads files that are there: it fetches nothing.")
