"""How right is a head from the sides, and what makes it right: methods of inversion against true views of known heads.

`python -m benchmarks.quality --help`; benchmarks/README.md says what the figures are and what was measured.

    subjects        scan.py, synthetic.py (paint.py, props.py); truth.py is what all of them give
    what is judged  views.py, parts.py, align.py, carried.py, metrics.py, measure.py
    methods         methods/, one file each behind methods/base.py; door.py replaces a stage's outputs
    the run         budget.py, jobs.py
    what is shown   summary.py, table.py, plots.py, sheet.py
"""
