//! How many workers "auto" is.

use crate::error::WorkerCountError;

/// The variable that says how many workers shall run.
pub const VARIABLE: &str = "WEB_CONCURRENCY";

/// The largest size of a pool.
pub(crate) const LARGEST: usize = 4096;

/// How many members a pool has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Size {
    /// `WEB_CONCURRENCY` if it is set, else the CPUs that this process may use (affinity and cgroup quota honoured).
    #[default]
    Auto,
    /// This many, 1 to 4096.
    Fixed(usize),
}

impl From<usize> for Size {
    fn from(size: usize) -> Size {
        Size::Fixed(size)
    }
}

impl Size {
    pub(crate) fn resolve(self) -> Result<usize, WorkerCountError> {
        match self {
            Size::Fixed(size) if (1..=LARGEST).contains(&size) => Ok(size),
            Size::Fixed(size) => Err(WorkerCountError { source_name: "the size of a pool", value: size.to_string() }),
            Size::Auto => match std::env::var(VARIABLE) {
                Ok(value) => parse(&value),
                Err(std::env::VarError::NotPresent) => Ok(available()),
                Err(std::env::VarError::NotUnicode(value)) => parse(&value.to_string_lossy()),
            },
        }
    }
}

fn parse(value: &str) -> Result<usize, WorkerCountError> {
    match value.trim().parse() {
        Ok(count) if (1..=LARGEST).contains(&count) => Ok(count),
        _ => Err(WorkerCountError { source_name: VARIABLE, value: value.to_owned() }),
    }
}

fn available() -> usize {
    // It fails only where the system says nothing; one worker is then the honest answer.
    std::thread::available_parallelism().map_or(1, |count| count.get().min(LARGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_must_be_a_number_of_workers() {
        assert_eq!(parse("4"), Ok(4));
        assert_eq!(parse(" 4\n"), Ok(4));
        for wrong in ["", "0", "-1", "4.5", "many", "4097", "18446744073709551616"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("WEB_CONCURRENCY") && error.contains(&format!("`{wrong}`")), "{error}");
        }
    }
}
