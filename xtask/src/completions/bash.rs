//! The bash frame's blanks.

use super::{KEEP, Kind, Opt};

/// The whole script.
pub fn script(options: &[Opt]) -> String {
    let all: Vec<String> = options.iter().flat_map(Opt::spellings).collect();
    include_str!("vsrun.bash.in")
        .replace("@KEEP@", KEEP)
        .replace("@FIRST@", &values(options, 0))
        .replace("@SECOND@", &values(options, 1))
        .replace("@EXCLUDE@", &exclusions(options))
        .replace("@OPTIONS@", &all.join(" "))
}

/// The case arms for the value at this place behind an option.
fn values(options: &[Opt], place: usize) -> String {
    let arms = options.iter().filter_map(|option| {
        let complete = match option.values.get(place)?.kind {
            Kind::User => "_vsrun_value user; return",
            Kind::File => "_vsrun_value file; return",
            Kind::Directory => "_vsrun_value directory; return",
            Kind::Keep => "_vsrun_value keep; return",
            Kind::Free => "return",
        };
        Some(format!(
            "    {}) {complete} ;;",
            option.spellings().join(" | ")
        ))
    });
    arms.collect::<Vec<_>>().join("\n")
}

fn exclusions(options: &[Opt]) -> String {
    let arm = |option: &Opt| {
        let pattern = patterns(option).join(" | ");
        format!(
            "        {pattern}) given+='{} ' ;;",
            option.excludes.join(" ")
        )
    };
    options.iter().map(arm).collect::<Vec<_>>().join("\n")
}

/// An option with a value may also be written as one word.
fn patterns(option: &Opt) -> Vec<String> {
    let mut patterns = option.spellings();
    if !option.values.is_empty() {
        patterns.push(format!("--{}=*", option.long));
    }
    patterns
}
