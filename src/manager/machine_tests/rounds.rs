//! What may happen between two waits of the event loop, at random.

use proptest::prelude::*;

use super::*;

/// One round of the event loop.
#[derive(Debug, Clone)]
pub struct Round {
    /// How long the loop waited for it.
    pub wait: Wait,
    /// What has become of the server, or of the process that is to become it.
    pub server: Fate,
    /// The handler's answer, if it has ended.
    pub answer: Option<Verdict>,
    /// The requests that were waiting.
    pub requests: &'static [Then],
    /// What comes of a process that is ordered.
    pub supply: Supply,
}

/// How long the event loop waits: until the deadline, or until something wakes it before.
#[derive(Debug, Clone, Copy)]
pub enum Wait {
    /// So many milliseconds, if the deadline does not come first.
    For(u64),
    /// Until the deadline, or a millisecond where there is none.
    Out,
    /// So many milliseconds longer than until the deadline: the machine is busy, or was suspended.
    Over(u64),
}

/// What becomes of a process that is the server or is to become it. What does not befit where it
/// stands does not happen.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// Nothing.
    Stays,
    /// It executes the server.
    Executes,
    /// It cannot execute the server.
    IsRefused,
    /// It lacks what it takes.
    Lacks,
    /// A signal ends it before it has executed anything.
    IsKilled(i32),
    /// The server ends; it was executed in the same round if it was not before.
    Ends(Exit),
}

/// Whether a process that is ordered comes to be.
#[derive(Debug, Clone, Copy)]
pub enum Supply {
    /// It does.
    Had,
    /// The system lacks what it takes.
    Lacking,
    /// It cannot be, for another reason.
    Refused,
}

const fn signal(number: i32, core: bool) -> Fate {
    Fate::Ends(Exit::Signal { number, core })
}

const WAITS: [Wait; 10] = [
    Wait::Out,
    Wait::Out,
    Wait::Out,
    Wait::For(0),
    Wait::For(50),
    Wait::For(5_000),
    Wait::For(9_999),
    Wait::For(10_000),
    Wait::Over(70),
    Wait::Over(40_000),
];

const FATES: [Fate; 20] = [
    Fate::Stays,
    Fate::Stays,
    Fate::Stays,
    Fate::Executes,
    Fate::Executes,
    Fate::Executes,
    Fate::Executes,
    Fate::IsRefused,
    Fate::Lacks,
    Fate::IsKilled(libc::SIGTERM),
    Fate::IsKilled(libc::SIGKILL),
    Fate::Ends(Exit::Status(0)),
    Fate::Ends(Exit::Status(1)),
    Fate::Ends(Exit::Status(255)),
    signal(libc::SIGTERM, false),
    signal(libc::SIGHUP, false),
    signal(libc::SIGINT, false),
    signal(libc::SIGQUIT, true),
    signal(libc::SIGSEGV, true),
    signal(64, false),
];

const ANSWERS: [Option<Verdict>; 8] = [
    None,
    None,
    None,
    Some(Verdict::Restart),
    Some(Verdict::Restart),
    Some(Verdict::Restart),
    Some(Verdict::Restart),
    Some(Verdict::Refuse),
];

const REQUESTS: [&[Then]; 24] = {
    let mut requests: [&[Then]; 24] = [&[]; 24];
    requests[18] = &[Then::Restart];
    requests[19] = &[Then::Restart];
    requests[20] = &[Then::Restart, Then::Restart];
    requests[21] = &[Then::Exit];
    requests[22] = &[Then::Restart, Then::Exit];
    requests[23] = &[Then::Exit, Then::Restart];
    requests
};

const SUPPLIES: [Supply; 10] = {
    let mut supplies = [Supply::Had; 10];
    supplies[7] = Supply::Lacking;
    supplies[8] = Supply::Lacking;
    supplies[9] = Supply::Refused;
    supplies
};

/// What a whole life is like.
#[derive(Debug, Clone, Copy)]
enum Mood {
    /// Anything may happen at any time.
    Mixed,
    /// Nobody asks for anything.
    Quiet,
    /// Nobody asks for anything, and the system lacks nearly everything.
    Poor,
}

const MOODS: [Mood; 5] = [Mood::Mixed, Mood::Mixed, Mood::Mixed, Mood::Quiet, Mood::Poor];

impl Round {
    /// The round that a number stands for.
    fn of(mut number: u32) -> Round {
        fn pick<T: Copy>(number: &mut u32, from: &[T]) -> T {
            let picked = from[*number as usize % from.len()];
            *number /= from.len() as u32;
            picked
        }
        Round {
            wait: pick(&mut number, &WAITS),
            server: pick(&mut number, &FATES),
            answer: pick(&mut number, &ANSWERS),
            requests: pick(&mut number, &REQUESTS),
            supply: pick(&mut number, &SUPPLIES),
        }
    }

    fn in_mood(self, mood: Mood) -> Round {
        let supply = match (mood, self.supply) {
            (Mood::Poor, Supply::Had) => Supply::Lacking,
            (Mood::Poor, Supply::Lacking) => Supply::Had,
            (_, supply) => supply,
        };
        match mood {
            Mood::Mixed => self,
            Mood::Quiet | Mood::Poor => Round { requests: &[], supply, ..self },
        }
    }

    /// The round without what ends a manager.
    fn endless(self) -> Round {
        let server = match self.server {
            Fate::Ends(Exit::Status(0)) => Fate::Ends(Exit::Status(1)),
            fate => fate,
        };
        let requests = if self.requests.contains(&Then::Exit) { &[] } else { self.requests };
        // A handler that cannot be run has refused.
        let supply = match self.supply {
            Supply::Refused => Supply::Had,
            supply => supply,
        };
        Round { server, requests, supply, answer: self.answer.map(|_| Verdict::Restart), ..self }
    }
}

fn life(length: usize) -> impl Strategy<Value = Vec<Round>> {
    let rounds = prop::collection::vec(any::<u32>(), 0..length);
    (prop::sample::select(&MOODS[..]), rounds).prop_map(|(mood, rounds)| {
        rounds.into_iter().map(|number| Round::of(number).in_mood(mood)).collect()
    })
}

/// A life of a manager, with everything that may happen.
pub fn any_life() -> impl Strategy<Value = Vec<Round>> {
    life(60)
}

/// A life that nothing ends: nobody stops the manager, no server is content, no handler refuses.
pub fn endless_life() -> impl Strategy<Value = Vec<Round>> {
    life(120).prop_map(|rounds| rounds.into_iter().map(Round::endless).collect())
}
