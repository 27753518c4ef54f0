//! A small world for a machine: the processes that its actions bring about,
//! events in the order of the event loop, simulated time. Keeps a record of
//! every step and checks nothing.

use super::rounds::{Fate, Round, Supply, Wait};
use super::*;

/// A process that the machine orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// There is none.
    Absent,
    /// It has been forked, and has executed nothing.
    Held,
    /// It has run since then.
    Runs(Instant),
    /// It has been reaped, and the machine has not been told.
    Reaped,
}

/// How things stand.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    pub state: State,
    pub deadline: Option<Instant>,
    pub server: Process,
    pub handler: Process,
}

/// What the machine made of an event, and how things stood around that.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub now: Instant,
    pub before: Sight,
    pub event: Event,
    pub action: Option<Action>,
    pub after: Sight,
    /// What had been asked for before, and was not fulfilled. An exit includes a restart.
    pub asked: Option<Then>,
}

impl Step {
    pub fn starts(&self) -> bool {
        self.action == Some(Action::StartServer)
    }

    pub fn asks_handler(&self) -> bool {
        matches!(self.action, Some(Action::RunHandler(_)))
    }
}

/// A manager's surroundings.
#[derive(Debug)]
pub struct World {
    pub machine: Machine,
    pub now: Instant,
    pub steps: Vec<Step>,
    /// How things stood whenever the loop went to wait, and what had been asked for.
    pub rests: Vec<(Instant, Sight, Option<Then>)>,
    pub asked: Option<Then>,
    server: Process,
    handler: Process,
    /// How many processes there have been that were the server or to become it.
    starts: i32,
}

impl World {
    /// The world as a manager finds it: the first server is on its way.
    pub fn new() -> World {
        World {
            machine: Machine::default(),
            now: Instant::now(),
            steps: Vec::new(),
            rests: Vec::new(),
            asked: None,
            server: Process::Held,
            handler: Process::Absent,
            starts: 1,
        }
    }

    /// The world after these rounds.
    pub fn after(rounds: &[Round]) -> World {
        let mut world = World::new();
        rounds.iter().for_each(|round| world.pass(round));
        world
    }

    /// How things stand.
    pub fn sight(&self) -> Sight {
        let (state, deadline) = (self.machine.state(), self.machine.deadline());
        Sight { state, deadline, server: self.server, handler: self.handler }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.machine.state(), State::Done(_))
    }

    /// Lets one round of the event loop pass.
    pub fn pass(&mut self, round: &Round) {
        if self.is_over() {
            return;
        }
        self.wait(round.wait);
        // What has executed is told at once; requests come next, and whatever ended last.
        let server = self.server_ended(round);
        let handler = self.handler_ended(round);
        for then in round.requests {
            self.feed(Event::Asked(*then), round.supply);
        }
        if let Some(event) = server {
            self.server = Process::Absent;
            self.feed(event, round.supply);
        }
        if let Some(event) = handler {
            self.handler = Process::Absent;
            self.feed(event, round.supply);
        }
        if self.machine.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.feed(Event::TimePassed, round.supply);
        }
        self.rests.push((self.now, self.sight(), self.asked));
    }

    /// Makes a request.
    pub fn ask(&mut self, then: Then) {
        self.feed(Event::Asked(then), Supply::Had);
    }

    /// Lets whatever runs come to an end in so many rounds, while nobody asks for anything more.
    pub fn wind_up(&mut self, rounds: &[Round]) {
        for round in rounds {
            let server = match (self.server, round.server) {
                (_, Fate::Ends(exit)) => Fate::Ends(exit),
                (Process::Held, Fate::IsRefused | Fate::Lacks | Fate::IsKilled(_)) => round.server,
                _ => Fate::Ends(Exit::Status(0)),
            };
            let answer = round.answer.or(Some(Verdict::Refuse));
            self.pass(&Round { server, answer, requests: &[], supply: Supply::Had, ..*round });
        }
    }

    fn wait(&mut self, wait: Wait) {
        let deadline = self.machine.deadline().map(|deadline| deadline.max(self.now));
        let ms = Duration::from_millis;
        self.now = match (wait, deadline) {
            (Wait::For(time), Some(deadline)) => deadline.min(self.now + ms(time)),
            (Wait::Out, Some(deadline)) => deadline,
            (Wait::Over(lag), Some(deadline)) => deadline + ms(lag),
            (Wait::For(time) | Wait::Over(time), None) => self.now + ms(time),
            (Wait::Out, None) => self.now + ms(1),
        };
    }

    fn server_ended(&mut self, round: &Round) -> Option<Event> {
        if self.server == Process::Held {
            if let Fate::Executes | Fate::Ends(_) = round.server {
                self.server = Process::Runs(self.now);
                self.feed(Event::Started, round.supply);
            }
        }
        let event = match (self.server, round.server) {
            // A first start that fails while nobody wants it undone is the end of vsrun, and no
            // matter for the machine.
            (Process::Held, _) if self.starts == 1 && self.asked.is_none() => return None,
            (Process::Held, Fate::Lacks) => Event::ResourcesLacked,
            (Process::Held, Fate::IsRefused) => self.death(not_started().cause, Duration::ZERO),
            (Process::Held, Fate::IsKilled(signal)) => self.death(killed(signal).cause, SHORT),
            (Process::Runs(since), Fate::Ends(exit)) => {
                self.death(Cause::Ended(exit), self.now - since)
            }
            _ => return None,
        };
        self.server = Process::Reaped;
        Some(event)
    }

    fn handler_ended(&mut self, round: &Round) -> Option<Event> {
        let event = match (self.handler, round.supply, round.answer) {
            (Process::Held, Supply::Lacking, _) => Event::ResourcesLacked,
            (Process::Held, Supply::Refused, _) => Event::HandlerEnded(Verdict::Refuse),
            (Process::Held | Process::Runs(_), _, Some(verdict)) => Event::HandlerEnded(verdict),
            (Process::Held, ..) => {
                self.handler = Process::Runs(self.now);
                return None;
            }
            _ => return None,
        };
        self.handler = Process::Reaped;
        Some(event)
    }

    /// A death that is told apart from every other by its process.
    fn death(&self, cause: Cause, uptime: Duration) -> Event {
        Event::ServerEnded(Death { pid: Pid::from_raw(self.starts), cause, uptime })
    }

    /// Tells the machine, and does what it wants.
    fn feed(&mut self, event: Event, supply: Supply) {
        let mut next = Some(event);
        while let Some(event) = next {
            let (before, asked) = (self.sight(), self.asked);
            match event {
                Event::Asked(then) if asked != Some(Then::Exit) => self.asked = Some(then),
                _ => {}
            }
            let action = self.machine.step(event, self.now);
            next = action.and_then(|action| self.perform(action, supply));
            let after = self.sight();
            self.steps.push(Step { now: self.now, before, event, action, after, asked });
        }
    }

    /// Does what the machine wants; what came of it, where that is known at once.
    fn perform(&mut self, action: Action, supply: Supply) -> Option<Event> {
        match action {
            Action::StartServer => {
                self.starts += 1;
                // What was asked for, a start, is done.
                self.asked = self.asked.filter(|then| *then == Then::Exit);
                match supply {
                    Supply::Had => self.server = Process::Held,
                    Supply::Lacking => return Some(Event::ResourcesLacked),
                    Supply::Refused => {
                        return Some(self.death(not_started().cause, Duration::ZERO));
                    }
                }
            }
            Action::RunHandler(_) => match supply {
                Supply::Had => self.handler = Process::Held,
                Supply::Lacking => return Some(Event::ResourcesLacked),
                Supply::Refused => return Some(Event::HandlerEnded(Verdict::Refuse)),
            },
            Action::StopServer
            | Action::CheckServer(_)
            | Action::StopHandler
            | Action::KillHandler
            | Action::Say(_) => {}
        }
        None
    }
}
