"""Tests of the page. A package, so that its browser and servers end with the last of them: a page that nobody looks at
draws on, and takes a fifth of a core."""
