//! The fish frame's blanks: one `complete` command an option, and one for each
//! second value, which fish knows nothing of.

use super::{KEEP, Kind, Opt, quoted};

/// The whole script.
pub fn script(options: &[Opt]) -> String {
    let commands: Vec<String> = options.iter().flat_map(commands).collect();
    include_str!("vsrun.fish.in")
        .replace("@VALUED@", &with_values(options, 1))
        .replace("@TWO@", &with_values(options, 2))
        .replace("@OPTIONS@", &commands.join("\n"))
}

/// The spellings of the options that take at least so many values.
fn with_values(options: &[Opt], least: usize) -> String {
    let found = options.iter().filter(|option| option.values.len() >= least);
    found.flat_map(Opt::spellings).collect::<Vec<_>>().join(" ")
}

fn commands(option: &Opt) -> Vec<String> {
    let free = format!(
        "not __vsrun_marked; and not __vsrun_given {}",
        option.excludes.join(" ")
    );
    let short = option
        .short
        .map(|letter| format!(" -s {letter}"))
        .unwrap_or_default();
    let mut first = format!("complete -c vsrun -n '{free}'{short} -l {}", option.long);
    if let Some(value) = option.values.first() {
        first += &format!(" -r {}", offered(value.kind));
    }
    first += &format!(" -d {}", quoted(&option.summary, "\\'"));
    let second = option.values.get(1).map(|value| {
        let place = format!("__vsrun_second {}", option.spellings().join(" "));
        format!("complete -c vsrun -n '{place}' {}", offered(value.kind))
    });
    [first].into_iter().chain(second).collect()
}

fn offered(kind: Kind) -> String {
    match kind {
        Kind::User => "-f -a '(__vsrun_users)'".to_owned(),
        Kind::File => "-F".to_owned(),
        Kind::Directory => "-f -a '(__fish_complete_directories)'".to_owned(),
        Kind::Keep => format!("-f -a '{KEEP}'"),
        Kind::Free => "-f".to_owned(),
    }
}
