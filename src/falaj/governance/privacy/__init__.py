"""Purposes: what data may be used for, checked before it is read.

A source declares the purposes that its rows may serve; a model declares the one it serves. The
policy refuses to start a training whose purpose is not allowed by every source.
"""
