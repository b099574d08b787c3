"""Films: any media file in, one fragmented MP4 (CMAF) file out.

The only package that imports av, and it does so in a child process alone: `child` is what the
edge imports, and it knows no codec. Everything here treats a media file as hostile.
"""
