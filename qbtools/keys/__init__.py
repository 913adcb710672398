"""Passphrases that are made for one archive and wrapped for those who may open it.

Wrapping is done by other programs: age, scrypt, or a command of the user's.
"""
