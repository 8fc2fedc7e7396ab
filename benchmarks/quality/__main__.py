"""How right is a head from the sides, and what makes it right: methods of inversion against true views of known heads.

Subjects are held-out synthetic heads (--makehuman) and real scans (--scans); either may be left out. Whatever is
finished lies in --work and is not run again, so a run can be stopped, and enlarged later.
"""

import math
import os
import platform
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.quality import plots, scan, synthetic
from benchmarks.quality.budget import BUDGETS
from benchmarks.quality.jobs import CEILING, Job, code_hash, pictures, results, run_all, work_folder
from benchmarks.quality.methods import METHODS
from benchmarks.quality.sheet import subject_sheet
from benchmarks.quality.summary import COLUMNS
from benchmarks.quality.table import gain_table, table, unfit
from benchmarks.quality.truth import Subject
from pmv.errors import AssetsError, InputError
from pmv.files.artifacts import write_json
from pmv.files.reading import is_file
from pmv.generators import load_generator
from pmv.pictures.images import write_png
from pmv.pipeline.device import cpu_name

OUT = Path(__file__).resolve().parents[1] / "results" / "quality.json"
BASE = "PTI"
"""What gains are counted from."""
QUICK = ("PTI", "pmv", "oracle-depth")
SYNTHETIC = "synthetic"


def gather(
    makehuman: Path | None, scans: Path | None, work: Path, size: int, groups: tuple[str, ...], heads: int, jobs: int
) -> list[Subject]:
    """All subjects that can be had; says which cannot, and why.

    Raises:
        InputError: there is none.
    """
    subjects: list[Subject] = []
    wanted = tuple(group for group in synthetic.GROUPS if not groups or group in groups)
    try:
        if makehuman is None:
            raise InputError("no --makehuman")
        subjects += synthetic.synthetic_subjects(makehuman, work / "truth", size, wanted, heads, jobs)
    except (AssetsError, InputError) as error:
        print(f"synthetic heads are skipped: {error}")
    if not groups or scan.GROUP in groups:
        try:
            if scans is None:
                raise InputError("no --scans")
            subjects += scan.scan_subjects(scans, work / "truth", size)
        except InputError as error:
            print(f"scans are skipped: {error}")
    if not subjects:
        raise InputError("there is nothing to invert: give --makehuman, --scans, or both")
    return subjects


def machine(device: str, jobs: int) -> dict[str, Any]:
    """What the seconds depend on."""
    name = torch.cuda.get_device_name() if device == "cuda" else cpu_name()
    return {
        "device": name,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "jobs": jobs,
        "torch": metadata.version("torch"),
    }


def sets_of(subjects: list[Subject]) -> dict[str, list[Subject]]:
    """What tables are of: the scans, all synthetic heads, and each group of them where there is more than one."""
    by_group: dict[str, list[Subject]] = {}
    for subject in subjects:
        by_group.setdefault(subject.group, []).append(subject)
    sets = {scan.GROUP: by_group.pop(scan.GROUP)} if scan.GROUP in by_group else {}
    every = [subject for rows in by_group.values() for subject in rows]
    if every:
        sets[SYNTHETIC] = every
    return {**sets, **by_group} if len(by_group) > 1 else sets


def by_method(found: Mapping[Job, dict[str, Any]], subjects: list[Subject], part: float) -> dict[str, dict[str, Any]]:
    """Method → subject → result, in the order of the table."""
    names = {subject.name for subject in subjects}
    rows: dict[str, dict[str, Any]] = {name: {} for name in (*METHODS, CEILING)}
    for job, value in found.items():
        if job.part == part and job.subject.name in names:
            rows[job.method][job.subject.name] = value
    return {method: values for method, values in rows.items() if values}


@click.command(help=(__doc__ or "").replace("\n", " "))
@click.option("--makehuman", type=click.Path(path_type=Path), help="A MakeHuman checkout, for the synthetic heads.")
@click.option(
    "--scans", type=click.Path(path_type=Path), help="A folder of real scans, see benchmarks/quality/scan.py."
)
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Folder for truths, runs and results.")
@click.option("--budget", "budget_name", default="standard", show_default=True, type=click.Choice(list(BUDGETS)))
@click.option("--quick", is_flag=True, help="4 heads, 3 methods, the budget quick.")
@click.option("--method", "methods", multiple=True, type=click.Choice(list(METHODS)), help="Only these.")
@click.option(
    "--group", "groups", multiple=True, type=click.Choice([*synthetic.GROUPS, scan.GROUP]), help="Only these."
)
@click.option("--subject", "only", multiple=True, help="Only these, by name, such as painted-0.")
@click.option("--heads", default=synthetic.HEADS, show_default=True, help="Synthetic heads in each group.")
@click.option("--curve", multiple=True, type=click.FloatRange(0, 1), help="Parts of the tuning steps, for trade-offs.")
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--jobs", default=1, show_default=True, help="Inversions at once, each a process.")
@click.option("--threads", default=1, show_default=True, help="Of each process.")
@click.option("--generator", default="heads", show_default=True, help="Name or file.")
@click.option("--encoders", default="auto", show_default=True, help="Name or file, for encode and pmv+seed.")
@click.option("--out", default=OUT, show_default=False, type=click.Path(path_type=Path), help="The JSON to write.")
def main(
    makehuman: Path | None,
    scans: Path | None,
    work: Path,
    budget_name: str,
    quick: bool,
    methods: tuple[str, ...],
    groups: tuple[str, ...],
    only: tuple[str, ...],
    heads: int,
    curve: tuple[float, ...],
    device: str,
    jobs: int,
    threads: int,
    generator: str,
    encoders: str,
    out: Path,
) -> None:
    torch.set_num_threads(threads)
    if quick:
        budget_name, heads, methods = "quick", 1, methods or QUICK
        groups = groups or synthetic.GROUPS
    size = load_generator(generator).spec.resolution
    try:
        subjects = gather(makehuman, scans, work, size, groups, heads, jobs)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    subjects = [subject for subject in subjects if not only or subject.name in only]
    if not subjects:
        raise click.UsageError("no subject has such a name")
    if is_file(encoders):
        encoders = str(Path(encoders).resolve())
    budget = BUDGETS[budget_name]
    folder = work_folder(work.resolve(), budget)
    wanted = [
        Job(subject, method, budget.scaled(part), part, folder, device, generator, encoders)
        for subject in subjects
        for part in (1.0, *(p for p in curve if p != 1))
        for method in (*([CEILING] if part == 1 else []), *(methods or METHODS))
    ]
    run_all(wanted, jobs, threads)
    report(wanted, subjects, folder, {"budget": budget_name, "code": code_hash()} | machine(device, jobs), out)


def report(jobs: list[Job], subjects: list[Subject], folder: Path, about: dict[str, Any], out: Path) -> None:
    """Print the tables, and write JSON, plots and sheets of what is finished."""
    found = results(jobs)
    text, parts = legend({job.method for job in found}), sorted({job.part for job in jobs})
    for title, members in sets_of(subjects).items():
        rows = by_method(found, members, 1.0)
        views = {subject.name: subject.views for subject in members}
        text += [f"\n**{title}**, {len(members)} heads\n", table(rows, views)]
        if BASE in rows and len(rows) > 1:
            text += ["", gain_table(rows, views, BASE)]
        text += [f"- {reason}" for reason in unfit(rows)]
        if plots.can_plot():
            plots.plot_bars(rows, views, title, folder / f"{title}.png")
            if len(parts) > 1:
                curves = {m: {p: by_method(found, members, p).get(m, {}) for p in parts} for m in rows if m in METHODS}
                plots.plot_tradeoff(curves, views, title, folder / f"{title}_tradeoff.png")
    for subject in subjects:
        finished = [job for job in found if job.subject == subject and job.part == 1 and "views" in found[job]]
        drawn = {job.title: pictures(job) for job in finished}
        if drawn:
            write_png(folder / f"sheet_{subject.name}.png", subject_sheet(subject.truth(), subject.views, drawn))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"about": about, "columns": [column.title for column in COLUMNS], "heads": _rows(found)})
    (folder / "table.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))
    print("\n" + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"sheets{' and plots' if plots.can_plot() else ' (no plots: matplotlib is missing)'} in {folder}; {out}")


def legend(methods: Collection[str]) -> list[str]:
    """What the rows are, a line each."""
    lines = [f"- {name}: {method.about}" for name, method in METHODS.items() if name in methods]
    return [*lines, f"- {CEILING}: the photo's own texels on the true surface, nothing fitted"]


def _rows(found: Mapping[Job, dict[str, Any]]) -> list[dict[str, Any]]:
    """What the tables are made of, a row for each inversion; all figures of all views lie in the work folder."""
    rows = []
    for job, value in found.items():
        row = {"subject": job.subject.name, "group": job.subject.group, "method": job.method, "part": job.part}
        row |= {key: value[key] for key in ("steps", "seconds", "cpu_seconds", "unfit") if key in value}
        values = [column.of(value, job.subject.views) for column in COLUMNS]
        rows.append(row | {"values": [None if math.isnan(v) else round(v, 4) for v in values]})
    return rows


if __name__ == "__main__":
    main()
