//! Which of a survey's pictures one machine makes.

use super::{Error, Result};

/// Every N-th picture, from the K-th on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From 1 on.
    part: usize,
    of: usize,
}

/// Of Slurm's job arrays, and of Kubernetes' indexed jobs, which do not tell how many there are:
/// the job's description can hand its `completions` on.
const SLURM: [&str; 3] = ["SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"];
const KUBERNETES: [&str; 2] = ["JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"];

impl Share {
    /// All of them.
    pub const ALL: Share = Share { part: 1, of: 1 };

    /// From `3/14`.
    ///
    /// # Errors
    /// What is no part of a whole, in words.
    pub fn parse(text: &str) -> Result<Share, String> {
        let number = |text: &str| text.trim().parse::<usize>().ok();
        let parsed = text.split_once('/').and_then(|(k, n)| Some((number(k)?, number(n)?)));
        parsed
            .filter(|(part, of)| (1..=*of).contains(part))
            .map(|(part, of)| Share { part, of })
            .ok_or_else(|| "expected K/N such as 3/14, K from 1 to N".to_string())
    }

    /// As the environment of a job array says, and by which variable; `read` gives a variable's
    /// value.
    ///
    /// # Errors
    /// A variable that is no number, or is out of range; an index without a count.
    pub fn of_environment(
        read: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<(Share, &'static str)>> {
        let number = |name: &str| -> Result<Option<usize>> {
            let Some(text) = read(name).filter(|text| !text.trim().is_empty()) else {
                return Ok(None);
            };
            let wrong = || Error::Share {
                from: name.to_string(),
                problem: format!("`{text}` is no whole number; --part K/N overrides it"),
            };
            text.trim().parse().map(Some).map_err(|_| wrong())
        };
        let [task, count, least] = SLURM;
        if let Some(index) = number(task)? {
            let of = number(count)?;
            let first = number(least)?.unwrap_or(1);
            return Share::counted(task, count, index.checked_sub(first), of).map(Some);
        }
        let [task, count] = KUBERNETES;
        match number(task)? {
            Some(index) => Share::counted(task, count, Some(index), number(count)?).map(Some),
            None => Ok(None),
        }
    }

    fn counted(
        task: &'static str,
        count: &'static str,
        index: Option<usize>,
        of: Option<usize>,
    ) -> Result<(Share, &'static str)> {
        let refuse = |problem: String| Error::Share { from: task.to_string(), problem };
        let of = of.ok_or_else(|| {
            refuse(format!(
                "it says which part this is, but {count} does not say of how many: --part K/N does"
            ))
        })?;
        match index.filter(|index| *index < of) {
            Some(index) => Ok((Share { part: index + 1, of }, task)),
            None => Err(refuse(format!(
                "it is none of the {of} that {count} tells of (numbers without gaps are \
                    expected): --part K/N says which part this is"
            ))),
        }
    }

    /// Whether the picture of this number, from 0 on, is a part of it.
    pub fn holds(self, index: usize) -> bool {
        index % self.of == self.part - 1
    }

    /// There are others.
    pub fn is_part(self) -> bool {
        self.of > 1
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<(Share, &'static str)>> {
        let given = |name: &str| {
            let mut pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
        };
        Share::of_environment(given)
    }

    #[test]
    fn parts_are_read_from_options_and_job_arrays() {
        assert_eq!(Share::parse("3/14"), Ok(Share { part: 3, of: 14 }));
        assert!(["0/2", "3/2", "1", "a/b", "-1/2", ""].iter().all(|t| Share::parse(t).is_err()));
        let found = |text| read(text).unwrap().map(|(share, by)| (share.to_string(), by));
        let slurm = "SLURM_ARRAY_TASK_ID";
        assert_eq!(found(""), None);
        assert_eq!(
            found("SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_COUNT=4"),
            Some(("3/4".into(), slurm))
        );
        assert_eq!(
            found("SLURM_ARRAY_TASK_ID=0 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=0"),
            Some(("1/4".into(), slurm))
        );
        assert_eq!(
            found("JOB_COMPLETION_INDEX=3 JOB_COMPLETIONS=4"),
            Some(("4/4".into(), "JOB_COMPLETION_INDEX"))
        );
        for wrong in [
            "SLURM_ARRAY_TASK_ID=x",
            "SLURM_ARRAY_TASK_ID=3",
            "SLURM_ARRAY_TASK_ID=5 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=1",
            "SLURM_ARRAY_TASK_ID=0 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=1",
            "JOB_COMPLETION_INDEX=1",
            "JOB_COMPLETION_INDEX=4 JOB_COMPLETIONS=4",
        ] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("--part K/N"), "{error}");
        }
    }

    #[test]
    fn parts_are_all_of_it_and_share_nothing() {
        let parts: Vec<Share> = (1..=3).map(|part| Share { part, of: 3 }).collect();
        for index in 0..10 {
            assert_eq!(parts.iter().filter(|part| part.holds(index)).count(), 1);
        }
        assert!((0..10).all(|index| Share::ALL.holds(index)));
    }
}
