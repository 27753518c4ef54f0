//! The options: the one table behind the parser, `--help`, the manual page and
//! the completions.

use std::fmt::{self, Write as _};

/// An option, as it is typed and as it is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Opt {
    /// Its letter.
    pub short: char,
    /// Its word.
    pub long: &'static str,
    /// What its values are called.
    pub values: &'static [&'static str],
    /// Whether a value may begin with a hyphen. Where none may, a forgotten value is noticed.
    pub hyphens: bool,
    /// The option that it cannot be used with.
    pub excludes: Option<&'static str>,
    /// What it does, in half a line.
    pub summary: &'static str,
    /// The rest of what there is to say, in lines of at most 70 characters.
    pub text: &'static str,
}

const NONE: Opt = Opt {
    short: ' ',
    long: "",
    values: &[],
    hyphens: false,
    excludes: None,
    summary: "",
    text: "",
};

/// Every option, in the order in which they are told.
pub const OPTIONS: [Opt; 10] = [
    Opt {
        short: 'u',
        long: "user",
        values: &["USER[:GROUP]"],
        hyphens: true,
        summary: "Run the server as this user",
        text: "\
USER is a name or a numeric id; USER:GROUP sets another primary
group. The supplementary groups are the user's own, never the
caller's, and HOME, USER, LOGNAME and SHELL are the user's. The
handler and logger run as the same user.",
        ..NONE
    },
    Opt {
        short: 'p',
        long: "pidfile",
        values: &["FILE"],
        summary: "Write the server's process id to this file",
        text: "\
The file is replaced atomically, before the server's first
instruction and again at each restart. With --manager it is removed
as soon as the server is gone.",
        ..NONE
    },
    Opt {
        short: 'r',
        long: "root",
        values: &["DIR"],
        summary: "Change the server's root directory",
        text: "\
COMMAND is searched for inside the new root; users and groups are
looked up outside it. Without --work-dir the server starts in the
new root's /.",
        ..NONE
    },
    Opt {
        short: 'w',
        long: "work-dir",
        values: &["DIR"],
        summary: "Start the server in this directory",
        text: "With --root the directory is taken relative to the new root.",
        ..NONE
    },
    Opt {
        short: 'm',
        long: "manager",
        values: &["MONITOR-PIDFILE", "HANDLER"],
        summary: "Stay resident, and restart the server when it dies",
        text: "\
The manager's process id is written to MONITOR-PIDFILE, and one
manager at a time may hold that file. When the server dies
unexpectedly, the executable HANDLER is run and told about the death
in its environment: its exit status 0 restarts the server, anything
else ends the manager. SIGHUP to the manager restarts the server,
SIGTERM stops it.",
        ..NONE
    },
    Opt {
        short: 'b',
        long: "background",
        summary: "Run in the background",
        text: "\
The caller gets its prompt back when the server is running, or the
error and exit status that the foreground would have given.",
        ..NONE
    },
    Opt {
        short: 's',
        long: "syslog",
        values: &["PREFIX"],
        hyphens: true,
        excludes: Some("logdir"),
        summary: "Send all output to syslog under this prefix",
        text: "\
The standard output and error of vsrun, the server and the handler
go through the command `logger -t PREFIX`, which must be on PATH.",
    },
    Opt {
        short: 'd',
        long: "logdir",
        values: &["DIR", "KEEP"],
        hyphens: true,
        excludes: Some("syslog"),
        summary: "Send all output to files in this directory",
        text: "\
The server's output goes to `logfile`, vsrun's own and the handler's
to `vsrun.log`. Older files are renamed to `logfile.N` and
`vsrun.log.N`, and deleted once they are older than KEEP: a number
of hours, days, weeks or calendar months (12h, 7d, 4w, 2m; without a
unit, days).",
    },
    Opt { short: 'h', long: "help", summary: "Print help", text: "-h prints a summary.", ..NONE },
    Opt { short: 'V', long: "version", summary: "Print version", ..NONE },
];

/// How the text of `--help` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// A line for each option.
    Short,
    /// Everything.
    Long,
}

/// The text of `-h` or `--help`.
pub fn help(length: Length) -> String {
    let mut text = String::from(
        "Start a server process properly and keep it running\n\n\
         Usage: vsrun [OPTIONS] -- COMMAND [ARG]...\n\nOptions:\n",
    );
    let width = OPTIONS.iter().map(|option| option.to_string().len()).max().unwrap_or(0);
    for option in &OPTIONS {
        // Writing to memory does not fail.
        let _ = match length {
            Length::Short => writeln!(text, "  {:width$}  {}", option.to_string(), option.summary),
            Length::Long => option.tell(&mut text),
        };
    }
    let end = "Every word behind '--' belongs to the server. vsrun(8) tells the whole story.\n";
    let gap = if length == Length::Short { "\n" } else { "" };
    text + gap + end
}

impl Opt {
    fn tell(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "  {self}\n          {}", self.summary)?;
        let lines = self.text.lines().enumerate();
        lines.into_iter().try_for_each(|(number, line)| {
            let gap = if number == 0 { "\n" } else { "" };
            writeln!(text, "{gap}          {line}")
        })?;
        writeln!(text)
    }
}

impl fmt::Display for Opt {
    /// The option with its values, as in `-p, --pidfile FILE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-{}, --{}", self.short, self.long)?;
        self.values.iter().try_for_each(|value| write!(f, " {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_a_letter_and_a_word_of_its_own_and_lines_that_end() {
        for (place, option) in OPTIONS.iter().enumerate() {
            let others = OPTIONS.iter().skip(place + 1);
            assert!(option.short != ' ' && !option.long.is_empty() && !option.summary.is_empty());
            for other in others {
                assert!(option.short != other.short && option.long != other.long);
            }
        }
        for length in [Length::Short, Length::Long] {
            let text = help(length);
            assert!(
                text.lines().all(|line| line.len() <= 100 && line.trim_end() == line),
                "{text}"
            );
        }
    }

    #[test]
    fn what_excludes_is_excluded() {
        let found = |long: &str| OPTIONS.iter().find(|option| option.long == long);
        for option in &OPTIONS {
            if let Some(other) = option.excludes {
                assert_eq!(found(other).and_then(|other| other.excludes), Some(option.long));
            }
        }
    }
}
