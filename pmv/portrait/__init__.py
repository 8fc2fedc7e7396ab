"""From any photo to an aligned portrait: faces and landmarks, crop, camera, matte, and the way back into the photo."""
