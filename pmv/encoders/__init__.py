"""The dual encoder: from one aligned picture to a head in one forward pass.

After *Dual Encoder GAN Inversion for High-Fidelity 3D Head Reconstruction from Single Images* (Bilecen, Gökmen, Dundar,
NeurIPS 2024, arXiv:2409.20530): two encoders of one shape, of which the first is right where the photo sees the head
and the second plausible where it does not; their tri-planes are stitched by visibility.

    network.py     one encoder: latent, residual of the planes, and the surface that the picture shows
    lifting.py     features of the picture carried to the tri-planes along that surface
    occlusion.py   which texels of the planes, and which points of the volume, the picture sees
    dual.py        both encoders and their stitch; their file
    official.py    encoders of the published size; official_files.py reads theirs
    shipped.py     where a generator's encoders lie
"""
