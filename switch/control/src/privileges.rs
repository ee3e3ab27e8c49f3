//! Privileges of this process, and what to do where they are too few.

/// Capabilities that the daemon needs, by their numbers (capabilities(7)).
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN")];

/// The mend of something that the kernel did not permit, as the end of a line for people.
pub(crate) fn mend() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    match lacking(&status)[..] {
        [] => {
            ": the daemon has every capability it needs: look for a security module (AppArmor, SELinux), a \
               seccomp filter or a user namespace that forbids it"
                .to_owned()
        }
        ref lacking => format!(": the daemon lacks {}: run it as root with that", lacking.join(", ")),
    }
}

/// Capabilities that a thread lacks, by the text of its `status` file (proc_pid_status(5)).
fn lacking(status: &str) -> Vec<&'static str> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX);
    NEEDED.iter().filter(|(number, _)| mask >> number & 1 == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named() {
        assert!(lacking("CapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(lacking("CapPrm:\t000001ffffffffff\nCapEff:\t0000000000201000\n"), ["CAP_NET_RAW"]);
        assert_eq!(lacking("CapEff:\t0\n").len(), NEEDED.len());
    }
}
