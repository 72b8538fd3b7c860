//! The mount that a path leads to, `statx(2)`.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::syscall;

/// The mount that a path leads to, as the kernel names it in `mountinfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MountedAt {
    /// The first field, which is of one mount. Told since Linux 5.8.
    pub(crate) id: Option<u64>,
    /// The third field, which all mounts of one file system share.
    pub(crate) device: (u32, u32),
}

/// Looks where the path leads now. An automount is not triggered, and no server is asked.
pub(crate) fn mounted_at(path: &Path) -> io::Result<MountedAt> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::AT_NO_AUTOMOUNT | libc::AT_STATX_DONT_SYNC;
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the name ends in a NUL, and the kernel writes one `statx` to `status`. (The function of that name is not
    // in every C library.)
    let told = syscall(|| unsafe {
        libc::syscall(libc::SYS_statx, libc::AT_FDCWD, name.as_ptr(), flags, libc::STATX_MNT_ID, status.as_mut_ptr())
    });
    match told {
        Ok(_) => {
            // SAFETY: a `statx` is plain integers, for which zeroes are valid too.
            let status = unsafe { status.assume_init() };
            let id = (status.stx_mask & libc::STATX_MNT_ID != 0).then_some(status.stx_mnt_id);
            Ok(MountedAt { id, device: (status.stx_dev_major, status.stx_dev_minor) })
        }
        // No such call before Linux 4.11, and none that is let through in some containers.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            let device = path.metadata()?.dev();
            Ok(MountedAt { id: None, device: (libc::major(device), libc::minor(device)) })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_the_mount_that_mountinfo_names() {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let proc = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc")).unwrap();
        let mut fields = proc.split(' ');
        let (id, device) = (fields.next().unwrap(), fields.nth(1).unwrap());
        for path in ["/proc", "/proc/self"] {
            let at = mounted_at(Path::new(path)).unwrap();
            assert_eq!(format!("{}:{}", at.device.0, at.device.1), device);
            assert!(at.id.map_or(true, |found| found.to_string() == id), "{at:?} {proc}");
        }
        assert_eq!(mounted_at(Path::new("/proc/none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
