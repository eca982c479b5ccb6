"""The miniature: a small, truly trained Stable Diffusion whose restricted concept is weapons among emoji.

`concepts` names what it can draw, `art` reads the openly licensed emoji packages, `compose` makes captioned
pictures of them, `training` fits the four networks, `weights` is the trained product that ships with the package.
"""
