//! The result of one check.

/// The number of findings of one check that are reported; more may exist.
const FINDINGS_MAX: usize = 20;

/// One check: what was verified, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    /// The number of events, streams, snapshots or partitions that were verified.
    pub checked: u64,
    /// The first findings, as sentences.
    pub findings: Vec<String>,
}

impl Check {
    /// Creates a check without findings.
    pub fn new(name: &'static str) -> Self {
        Self { name, checked: 0, findings: Vec::new() }
    }

    /// Adds a finding, unless the limit is reached.
    pub fn add_finding(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    /// Adds findings up to the limit.
    pub(super) fn add_findings(&mut self, findings: Vec<String>) {
        findings.into_iter().for_each(|finding| self.add_finding(finding));
    }

    /// Returns the number of findings that may still be added.
    pub(super) fn room(&self) -> i64 {
        i64::try_from(FINDINGS_MAX - self.findings.len()).unwrap_or(0)
    }
}
