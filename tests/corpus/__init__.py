"""Adversarial images: pure writers of our own, what each must be answered with, and the tests that ask.

The catalogue is `catalogue.ENTRIES`; `python -m tests.corpus FOLDER` writes all of it out for other tools. Nothing
here knows the product's codecs: what writes an image must not share a mistake with what reads it.
"""
