//! Command-line words, made ready for clap.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{Arg, Command};

use super::usage;
use crate::error::Error;

/// Splits a first value that is attached to an option with two values, as in `-dDIR KEEP`, which
/// clap takes for the only one. Refuses a long option's name behind one hyphen, which clap reads as
/// a letter and its value.
pub fn for_clap(words: Vec<OsString>, definition: &Command) -> Result<Vec<OsString>, Error> {
    let mut ready = Vec::with_capacity(words.len() + 2);
    // How many values of the option before are still to come.
    let mut values = 0;
    for word in words {
        if values > 0 {
            values -= 1;
            ready.push(word);
            continue;
        }
        if let Some(long) = with_one_hyphen(&word, definition) {
            return Err(usage::one_hyphen(long));
        }
        let Some((option, attached)) = option_of(&word, definition) else {
            ready.push(word);
            continue;
        };
        let count = value_count(option);
        match attached {
            None => {
                values = count;
                ready.push(word);
            }
            Some(_) if count < 2 => ready.push(word),
            Some((end, value)) => {
                values = count - 1;
                let word = word.as_bytes();
                ready.extend([&word[..end], value].map(|part| OsStr::from_bytes(part).to_owned()));
            }
        }
    }
    Ok(ready)
}

fn with_one_hyphen<'a>(word: &OsStr, definition: &'a Command) -> Option<&'a str> {
    let name = word.as_bytes().strip_prefix(b"-")?;
    let name = name.split(|byte| *byte == b'=').next()?;
    let mut longs = definition.get_arguments().filter_map(Arg::get_long);
    longs.find(|long| long.as_bytes() == name)
}

/// Where an option's name ends in a word, and the value that follows it there.
type Attached<'a> = (usize, &'a [u8]);

/// The option that a word names, and the value that is attached to it.
fn option_of<'a, 'b>(
    word: &'b OsStr,
    definition: &'a Command,
) -> Option<(&'a Arg, Option<Attached<'b>>)> {
    let word = word.as_bytes();
    let mut options = definition.get_arguments();
    if let Some(name) = word.strip_prefix(b"--") {
        let end = name.iter().position(|byte| *byte == b'=');
        let long = &name[..end.unwrap_or(name.len())];
        let option = options.find(|it| it.get_long().map(str::as_bytes) == Some(long))?;
        return Some((option, end.map(|end| (end + 2, &name[end + 1..]))));
    }
    let letters = word.strip_prefix(b"-")?;
    for (place, letter) in letters.iter().enumerate() {
        let letter = Some(char::from(*letter));
        let option = definition
            .get_arguments()
            .find(|it| it.get_short() == letter)?;
        if value_count(option) > 0 {
            let rest = &letters[place + 1..];
            let value = rest.strip_prefix(b"=").unwrap_or(rest);
            return Some((option, (!rest.is_empty()).then_some((place + 2, value))));
        }
    }
    None
}

fn value_count(option: &Arg) -> usize {
    if !option.get_action().takes_values() {
        return 0;
    }
    option.get_num_args().map_or(1, |count| count.max_values())
}

#[cfg(test)]
mod tests {
    use super::super::definition;
    use super::*;

    fn ready(line: &[&str]) -> Vec<OsString> {
        let words = line.iter().map(OsString::from).collect();
        for_clap(words, &definition()).expect("words")
    }

    #[test]
    fn an_attached_first_value_of_two_becomes_a_word() {
        for line in [
            &["-dlogs", "7d"][..],
            &["--logdir=logs", "7d"],
            &["-d=logs", "7d"],
        ] {
            assert_eq!(ready(line)[1..], ["logs", "7d"]);
        }
        assert_eq!(
            ready(&["-bmpid", "handler", "-ppid"]),
            ["-bm", "pid", "handler", "-ppid"]
        );
    }

    #[test]
    fn values_are_left_alone() {
        let line = ["-s", "-dx", "-d", "-mx", "--manager=1", "-u", "-user"];
        assert_eq!(ready(&line), line);
    }
}
