"""The kinds of camera files, one module a kind; `pmv.geometry.camera_io` is the door to them.

The files come from other people's programs: what a reader does not use but matters (lens distortion) is refused, what
is usual is read (a missing principal point), and only `InputError` leaves a reader.
"""
