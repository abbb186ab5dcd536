//! The table of mounts: which file systems there are and which of them count.

use std::collections::BTreeSet;

use regex::Regex;

use crate::collect::fields::{Malformed, unescape};

/// The kinds of file systems left out by default: those that hold no data of anybody's.
const EXCLUDED_TYPES: &str = "^(?:autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|\
    hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|\
    sysfs|tracefs)$";
/// The mount points left out by default: the system's own and those of containers.
const EXCLUDED_POINTS: &str = "^/(?:dev|proc|run/credentials/.+|sys|var/lib/docker/.+|\
    var/lib/containers/storage/.+)(?:$|/)";
/// File systems that live on another machine or in another process, where one can hang without the others.
const REMOTE_TYPES: [&str; 12] =
    ["nfs", "cifs", "smb", "fuse", "ceph", "9p", "gluster", "lustre", "afs", "ocfs", "gfs", "beegfs"];

/// One mount, as its series are labelled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mount {
    pub(crate) device: String,
    pub(crate) point: String,
    pub(crate) kind: String,
    pub(crate) read_only: bool,
}

impl Mount {
    /// Whether it can hang for reasons of its own.
    pub(crate) fn is_remote(&self) -> bool {
        REMOTE_TYPES.iter().any(|prefix| self.kind.starts_with(prefix))
    }
}

/// Which mounts are left out.
#[derive(Debug)]
pub(crate) struct Exclusions {
    types: Regex,
    points: Regex,
}

impl Exclusions {
    /// The given patterns, or for `None` the usual ones.
    pub(crate) fn new(types: Option<Regex>, points: Option<Regex>) -> Self {
        let usual = |pattern| Regex::new(pattern).expect("the built-in pattern compiles");
        Self {
            types: types.unwrap_or_else(|| usual(EXCLUDED_TYPES)),
            points: points.unwrap_or_else(|| usual(EXCLUDED_POINTS)),
        }
    }

    fn exclude(&self, mount: &Mount) -> bool {
        self.types.is_match(&mount.kind) || self.points.is_match(&mount.point)
    }
}

/// Reads `/proc/…/mounts`: the mounts that count, each label set once, in the order of the table.
pub(crate) fn parse(text: &str, exclusions: &Exclusions) -> Result<Vec<Mount>, Malformed> {
    let mut seen = BTreeSet::new();
    let mut mounts = Vec::new();
    for line in text.lines() {
        let mount = parse_line(line).ok_or_else(|| Malformed::new("/proc/mounts", line))?;
        let label_set = (mount.device.clone(), mount.point.clone(), mount.kind.clone());
        if !exclusions.exclude(&mount) && seen.insert(label_set) {
            mounts.push(mount);
        }
    }
    Ok(mounts)
}

fn parse_line(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let (device, point, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some(Mount {
        device: unescape(device).into_owned(),
        point: unescape(point).into_owned(),
        kind: kind.to_owned(),
        read_only: options.split(',').any(|option| option == "ro"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusions() -> Exclusions {
        Exclusions::new(None, None)
    }

    #[test]
    fn mounts_that_count_are_listed_once() {
        let text = "proc /proc proc rw 0 0\n\
                    /dev/vda / ext4 rw,relatime 0 0\n\
                    tmpfs /dev/shm tmpfs rw 0 0\n\
                    tmpfs /run tmpfs ro,nosuid 0 0\n\
                    /dev/vda / ext4 rw,relatime 0 0\n\
                    /dev/vdb /srv/a\\040b xfs rw,errors=remount-ro 0 0\n\
                    overlay /var/lib/docker/overlay2/x/merged overlay rw 0 0\n\
                    server:/export /data nfs4 rw 0 0\n\
                    /dev/vdc /var/lib/docker/volumes ext4 rw 0 0\n\
                    cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        let mounts = parse(text, &exclusions()).unwrap();
        let short: Vec<_> = mounts
            .iter()
            .map(|m| (m.device.as_str(), m.point.as_str(), m.read_only, m.is_remote()))
            .collect();
        assert_eq!(
            short,
            [
                ("/dev/vda", "/", false, false),
                ("tmpfs", "/run", true, false),
                ("/dev/vdb", "/srv/a b", false, false),
                ("server:/export", "/data", false, true),
            ]
        );
        assert!(parse("garbage\n", &exclusions()).is_err());
    }

    #[test]
    fn a_configured_pattern_replaces_the_usual_one() {
        let only = Exclusions::new(Some(Regex::new("^ext4$").unwrap()), None);
        let mounts = parse("/dev/vda / ext4 rw 0 0\nnone /x overlay rw 0 0\n", &only).unwrap();
        assert_eq!(mounts.iter().map(|m| m.point.as_str()).collect::<Vec<_>>(), ["/x"]);
    }
}
