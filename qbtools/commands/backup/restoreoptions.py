"""The options of qb-backup restore for the targets of volumes."""

from __future__ import annotations

TEXT = """\
  --to DIR                  restore: the directory for the volumes.
  --pool PREFIX             restore: make the volumes PREFIX/DOMAIN-VOLUME, for
                            example with lvm:VG/POOL.
  --map DOMAIN:VOLUME=TARGET
                            restore: write this volume to TARGET; repeatable.
  --only WHAT               restore: only this DOMAIN or DOMAIN:VOLUME; repeatable.
                            With a host too.
  --overwrite               restore: replace volumes that already exist.
  --skip-existing           restore: leave out volumes that already exist and are
                            complete, for example after an interrupted run.
  --shrink                  restore: let volumes become smaller."""
