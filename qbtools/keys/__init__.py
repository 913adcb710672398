"""Wraps the passphrase of an archive for those who may open it, and signs archives.

Other programs do the wrapping and signing: age, scrypt, ssh-keygen, or a command of the user.
"""
