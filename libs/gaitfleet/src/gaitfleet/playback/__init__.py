"""Playback: pictures of a recorded episode, drawn from its state rows alone.

No simulator takes part: a state row holds the place of every body, and osim-rl's model file says which bone meshes hang
on it. Nothing here imports osim-rl or OpenSim; the files are found beside the installed package. Pictures are drawn by
numpy and Pillow: no display, GPU or OpenGL library is needed (VTK's wheels crash where the system has no EGL).

* `geometry`: the model file and its meshes, read
* `skeleton`: where they are in a state row
* `scene`: the skeleton and the ground, drawn
* `story`: velocity, score, reward terms and activations, as numbers
* `panel`: the same, drawn
* `frames`: both as one picture for each step
* `video`: GIF and MP4
* `page`: one HTML page that draws the same by WebGL, in `viewer/`, and lets it be turned

`scene`, `panel`, `frames` and `video` need the extra ``gaitfleet[play]``.
"""
