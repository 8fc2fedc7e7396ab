"""Cameras, surfaces and what is seen of them: rasteriser, mesh, visibility, warping, blending of depths."""
