"""Pictures without geometry: reading and writing, masks, overlays, inpainting, crops put back, sheets, video."""
