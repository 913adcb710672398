"""Passphrases that are made for one archive and wrapped for those who may open it, and signatures of who writes one.

Wrapping and signing is done by other programs: age, scrypt, ssh-keygen, or a command of the user's.
"""
