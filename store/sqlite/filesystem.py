"""What a path lies on: the kind of file system, whether it is shared over a network, how much room there is."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

# WAL needs shared memory between the processes, which these do not give; some end the process with SIGBUS.
_NETWORK_FILE_SYSTEMS = frozenset(
    str.split(
        "nfs nfs3 nfs4 cifs smb smb2 smb3 smbfs afs ncpfs coda davfs webdav lustre gpfs mmfs wekafs beegfs beegfs_nodev fhgfs ceph "
        "glusterfs pvfs2 orangefs panfs 9p virtiofs acfs ocfs2 gfs gfs2 moosefs efs fsx fsxn quobyte vboxsf vmhgfs prl_fs cvfs xtreemfs"
    )
)
# Behind FUSE anything may hide, so these are named; a local one (ntfs-3g, encfs) keeps its WAL.
_NETWORK_FUSE = re.compile(
    r"^fuse\.(sshfs|s3fs|gcsfuse|goofys|rclone|juicefs|ceph|cephfs|ceph-fuse|glusterfs|mfs|moosefs|lizardfs|beegfs|weka|davfs2?|"
    r"mount-s3|mountpoint-s3|blobfuse2?|azure|curlftpfs|xtreemfs|quobyte|hdfs|hf-mount|vmhgfs-fuse|smbnetfs|afs.*|dfs.*|nfs.*)$"
)
_OCTAL = re.compile(r"\\([0-7]{3})")


def mount_of(path: Path, mount_table: Path = Path("/proc/mounts")) -> tuple[str, str] | None:
    """Return where the file system of a path is mounted, and its kind; None without a mount table (macOS, Windows).

    Args:
        path: Absolute path; need not exist yet.
        mount_table: Linux' table of mounts.
    """
    try:
        lines = mount_table.read_text(errors="replace").splitlines()
    except OSError:
        return None
    target = os.path.realpath(path)
    found: tuple[str, str] | None = None
    for line in lines:
        words = line.split()
        if len(words) < 3:
            continue
        mount = _OCTAL.sub(lambda code: chr(int(code[1], 8)), words[1])
        is_inside = target == mount or target.startswith(mount.rstrip("/") + "/")
        # a later line of the same mount point hides the earlier one
        if is_inside and (found is None or len(mount) >= len(found[0])):
            found = mount, words[2]
    return found


def is_on_network(path: Path, mount_table: Path = Path("/proc/mounts")) -> bool:
    """Return whether a path lies on a network file system, as far as the mount table shows.

    Args:
        path: Absolute path; need not exist yet.
        mount_table: Linux' table of mounts; where there is none the answer is False.
    """
    mount = mount_of(path, mount_table)
    return mount is not None and (mount[1] in _NETWORK_FILE_SYSTEMS or bool(_NETWORK_FUSE.match(mount[1])))


def free_bytes(path: Path) -> int | None:
    """Return the room left where a path lies, in bytes; None where that cannot be found out."""
    for candidate in (path, *path.parents):
        try:
            return shutil.disk_usage(candidate).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
