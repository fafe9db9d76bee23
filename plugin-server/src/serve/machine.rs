//! Whatever order Kong's workers call in, on whatever connections, and whatever ends in the middle: a [`model`] knows what has
//! to come of each event, and whole servers must do the same, in both protocols.
//!
//! The servers run on threads of this process, so that an event's time can go by at once. All else is as it is: sockets,
//! two servers at once as while Kong reloads, one of them killed.

mod kong;
mod model;
mod server;
mod steps;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use self::kong::{Answer, Ask, Connection, Protocol};
use self::model::{ADDRESSES, Config, Decision, Event, Given};
use self::server::{Running, wait_until};
use self::steps::{Said, Step, step};
use crate::random_cases::random_cases;

proptest! {
    #![proptest_config(random_cases(100, 1))]

    #[test]
    fn whatever_kong_does_each_request_ends_as_it_has_to_and_nothing_stays(steps in vec(step(), 1..100)) {
        let mut machine = Machine::new();
        for step in steps {
            machine.take(step);
        }
        machine.finish();
    }
}

/// What the servers should know and have counted, beside them.
struct Machine {
    dir: TempDir,
    servers: Vec<Option<Server>>,
    /// Which of them the path leads to.
    at_path: Option<usize>,
    lines: Vec<Line>,
    instances: Vec<Instance>,
    /// Of MsgPack:1, that wait on no connection.
    waiting: Vec<Waiting>,
    ended: Vec<u64>,
    /// When each step began.
    times: Vec<Instant>,
}

struct Server {
    running: Running,
    /// Whether another one has taken over, so that in MsgPack:1 nothing more begins here.
    is_succeeded: bool,
    decisions: BTreeMap<Decision, u64>,
    abandoned: u64,
}

/// A connection, and what it is busy with in ProtoBuf:1.
struct Line {
    connection: Connection,
    server: usize,
    state: State,
}

enum State {
    Idle,
    InEvent(Box<Event>, usize),
    /// Kong has been told the last word.
    Refused,
}

struct Instance {
    id: u64,
    config: Config,
    protocol: Protocol,
    server: usize,
    is_open: bool,
    /// Whether Kong trusts them, as far as the instance has asked.
    peers: HashMap<String, bool>,
}

struct Waiting {
    id: u64,
    event: Event,
    instance: usize,
    server: usize,
    /// The step that it came to here.
    since: usize,
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self {
            dir: tempfile::tempdir().unwrap(),
            servers: Vec::new(),
            at_path: None,
            lines: Vec::new(),
            instances: Vec::new(),
            waiting: Vec::new(),
            ended: Vec::new(),
            times: Vec::new(),
        };
        machine.reload();
        machine
    }

    fn take(&mut self, step: Step) {
        self.times.push(Instant::now());
        match step {
            Step::Connect(protocol) => drop(self.connect(protocol)),
            Step::Drop(index) => {
                if let Some(line) = self.any_line(&index) {
                    self.close_line(line);
                }
            }
            Step::DropInCall(index) => {
                if let Some(line) = self.any_line(&index) {
                    let event = self.waiting.first().map_or(7, |waiting| waiting.id);
                    self.lines[line].connection.send_half(event);
                    self.close_line(line);
                }
            }
            Step::DropUnread { connection, event, said } => self.drop_unread(&connection, &event, &said),
            Step::Start { connection, config } => {
                if let Some(line) = self.idle_line(&connection, None) {
                    self.start(line, config);
                }
            }
            Step::Close { connection, instance } => self.close(&connection, &instance),
            Step::Begin { connection, instance, given, address, is_authenticated } => {
                let Some(line) = self.idle_line(&connection, None) else { return };
                let Some(instance) = self.any_instance(line, &instance) else { return };
                self.begin(line, instance, given, ADDRESSES[address], is_authenticated);
            }
            Step::Answer { connection, event, said } => {
                let running = self.running();
                if running.is_empty() {
                    return;
                }
                match running[event.index(running.len())] {
                    Of::Line(line) => self.answer_on_line(line, &said),
                    Of::Waiting(position) => {
                        if let Some(line) = self.idle_line(&connection, Some(Protocol::MsgPack)) {
                            self.answer_waiting(line, position, &said);
                        }
                    }
                }
            }
            Step::AnswerEnded { connection, event } => {
                let Some(line) = self.idle_line(&connection, Some(Protocol::MsgPack)) else { return };
                let known = event.filter(|_| !self.ended.is_empty());
                self.answer_ended(
                    line,
                    known.map_or(3 << 32, |event| self.ended[event.index(self.ended.len())]),
                );
            }
            Step::AnswerLastWord(index) => {
                let refused: Vec<_> = (0..self.lines.len())
                    .filter(|&line| matches!(self.lines[line].state, State::Refused))
                    .collect();
                if let Some(&line) = refused.get(index.index(refused.len().max(1))) {
                    self.lines[line].connection.answer_last_word();
                    self.lines[line].state = State::Idle;
                }
            }
            Step::Expire(index) => self.expire(index.index(self.times.len())),
            Step::TimeIsOver => {
                self.servers.iter().flatten().for_each(|server| server.running.advance());
                self.waiting.iter_mut().for_each(|waiting| waiting.event.time_is_over());
                for line in &mut self.lines {
                    if let State::InEvent(event, _) = &mut line.state {
                        event.time_is_over();
                    }
                }
            }
            Step::Reload => self.reload(),
            Step::End(index) => {
                let alive = self.alive();
                if !alive.is_empty() {
                    self.end(alive[index.index(alive.len())]);
                }
            }
        }
        self.check();
    }

    /// No server has an event that it should not have, and none is lost. What one of them asked another is over.
    fn check(&self) {
        for number in self.alive() {
            self.server(number).running.wait_for_connections(self.open(number));
            let expected = self.waiting.iter().filter(|waiting| waiting.server == number).count();
            assert_eq!(
                self.server(number).running.server.events.count(),
                expected,
                "events of server {number}"
            );
        }
    }

    fn server(&self, number: usize) -> &Server {
        self.servers[number].as_ref().expect("it is alive")
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.servers.len()).filter(|&number| self.servers[number].is_some()).collect()
    }

    fn reload(&mut self) {
        self.at_path = Some(self.servers.len());
        let running = Running::start(&self.dir.path().join("socket"));
        for (number, server) in self.servers.iter_mut().enumerate() {
            let Some(server) = server.as_mut().filter(|server| !server.is_succeeded) else { continue };
            wait_until(|| server.running.server.siblings.have_taken_over());
            server.is_succeeded = true;
            let of_server = self.instances.iter_mut().filter(|instance| instance.server == number);
            of_server
                .filter(|instance| instance.protocol == Protocol::MsgPack)
                .for_each(|instance| instance.is_open = false);
        }
        let (decisions, is_succeeded, abandoned) = (BTreeMap::new(), false, 0);
        self.servers.push(Some(Server { running, is_succeeded, decisions, abandoned }));
    }

    /// A server leaves where it may, and is killed where it runs events.
    fn end(&mut self, number: usize) {
        let is_busy = self.waiting.iter().any(|waiting| waiting.server == number)
            || self
                .lines
                .iter()
                .any(|line| line.server == number && matches!(line.state, State::InEvent(..)));
        if is_busy {
            self.servers[number].take().unwrap().running.kill();
            self.lines.retain(|line| line.server != number);
        } else {
            // The workers that leave take their connections with them.
            self.lines.retain(|line| line.server != number);
            let server = self.servers[number].take().unwrap();
            server.check_counts();
            server.running.leave();
        }
        self.ended.extend(
            self.waiting.extract_if(.., |waiting| waiting.server == number).map(|waiting| waiting.id),
        );
        self.at_path = self.at_path.filter(|at_path| *at_path != number);
    }

    fn connect(&mut self, protocol: Protocol) -> Option<usize> {
        let path = self.dir.path().join("socket");
        let Some(server) = self.at_path else {
            // Nobody is at the path. A child of another test holds the socket open between its fork and its exec.
            wait_until(|| Connection::to(&path, protocol).is_err());
            return None;
        };
        let connection = Connection::to(&path, protocol).unwrap();
        self.lines.push(Line { connection, server, state: State::Idle });
        // It has been accepted, so that the end of it can be waited for.
        self.server(server).running.wait_for_connections(self.open(server));
        Some(self.lines.len() - 1)
    }

    /// How many connections to a server are open.
    fn open(&self, server: usize) -> usize {
        self.lines.iter().filter(|line| line.server == server).count()
    }

    fn any_line(&self, index: &Index) -> Option<usize> {
        (!self.lines.is_empty()).then(|| index.index(self.lines.len()))
    }

    /// One that is free for a call, or else a new one.
    fn idle_line(&mut self, index: &Index, protocol: Option<Protocol>) -> Option<usize> {
        let is_free = |line: &Line| {
            matches!(line.state, State::Idle)
                && protocol.is_none_or(|protocol| line.connection.protocol == protocol)
        };
        let free: Vec<_> = (0..self.lines.len()).filter(|&line| is_free(&self.lines[line])).collect();
        match free.is_empty() {
            true => self.connect(protocol.unwrap_or(Protocol::MsgPack)),
            false => Some(free[index.index(free.len())]),
        }
    }

    /// What was closed has been seen to be closed: all that came before has then happened.
    fn close_line(&mut self, line: usize) {
        let Line { connection, server, state } = self.lines.swap_remove(line);
        drop(connection);
        let open = self.open(server);
        let server = self.servers[server].as_mut().expect("it is alive");
        if let State::InEvent(event, _) = state {
            server.abandoned += u64::from(event.config != Config::Broken);
        }
        server.running.wait_for_connections(open);
    }

    /// A connection of MsgPack:1 ends with an event, where its server has been succeeded.
    fn after_last(&mut self, line: usize) {
        if self.is_succeeded(line) {
            assert!(self.lines[line].connection.is_closed());
            self.close_line(line);
        }
    }

    /// Whether nothing more begins at a connection's server.
    fn is_succeeded(&self, line: usize) -> bool {
        let Line { connection, server, .. } = &self.lines[line];
        connection.protocol == Protocol::MsgPack && self.server(*server).is_succeeded
    }

    fn start(&mut self, line: usize, config: Config) {
        let successor = self.at_path.filter(|_| self.is_succeeded(line));
        let Line { connection, server, .. } = &mut self.lines[line];
        let (protocol, server) = (connection.protocol, successor.unwrap_or(*server));
        match connection.start(&config.json()) {
            Ok(id) => {
                assert!(config != Config::Broken || protocol == Protocol::ProtoBuf);
                let peers = HashMap::new();
                self.instances.push(Instance { id, config, protocol, server, is_open: true, peers });
            }
            Err(problem) => assert!(config == Config::Broken && problem.contains("not a CA"), "{problem}"),
        }
    }

    /// One of the connection's protocol, open or not. Where there is none, one is started.
    fn any_instance(&mut self, line: usize, index: &Index) -> Option<usize> {
        let protocol = self.lines[line].connection.protocol;
        let of_protocol = |machine: &Self| {
            let all = 0..machine.instances.len();
            all.filter(|&instance| machine.instances[instance].protocol == protocol).collect::<Vec<_>>()
        };
        if of_protocol(self).is_empty() {
            self.start(line, Config::Plain);
        }
        let known = of_protocol(self);
        Some(known[index.index(known.len())])
    }

    /// The instance that a connection's server has under an id. In MsgPack:1 it asks the server whose id it is.
    fn known_to(&self, line: usize, id: u64) -> Option<usize> {
        let Line { connection, server, .. } = &self.lines[line];
        self.instances.iter().position(|instance| {
            let is_reached = match connection.protocol {
                Protocol::MsgPack => self.servers[instance.server].is_some(),
                Protocol::ProtoBuf => instance.server == *server,
            };
            instance.is_open && instance.protocol == connection.protocol && instance.id == id && is_reached
        })
    }

    fn close(&mut self, connection: &Index, instance: &Index) {
        let Some(line) = self.idle_line(connection, None) else { return };
        let Some(instance) = self.any_instance(line, instance) else { return };
        let id = self.instances[instance].id;
        let known = self.known_to(line, id);
        assert_eq!(self.lines[line].connection.close(id), known.is_some());
        if let Some(known) = known {
            self.instances[known].is_open = false;
        }
    }

    fn begin(
        &mut self,
        line: usize,
        named: usize,
        given: Given,
        address: &'static str,
        is_authenticated: bool,
    ) {
        let id = self.instances[named].id;
        let known = self.known_to(line, id);
        let Line { connection, state, .. } = &mut self.lines[line];
        let protocol = connection.protocol;
        let (event_id, ask) = connection.begin(id);
        let Some(instance) = known else {
            assert_eq!(ask, Ask::NoInstance(id));
            if protocol == Protocol::ProtoBuf {
                *state = State::Refused;
            }
            return;
        };
        let Instance { config, server, .. } = self.instances[instance];
        let event = Event::new(config, given, address, is_authenticated, protocol);
        event.check(&ask).unwrap();
        match protocol {
            Protocol::ProtoBuf => *state = State::InEvent(Box::new(event), instance),
            Protocol::MsgPack => {
                assert!(!self.ended.contains(&event_id), "an id stands for one event");
                let since = self.times.len() - 1;
                self.waiting.push(Waiting { id: event_id, event, instance, server, since });
            }
        }
    }

    fn running(&self) -> Vec<Of> {
        let lines = self.lines.iter().enumerate();
        let on_lines = lines.filter(|(_, line)| matches!(line.state, State::InEvent(..)));
        on_lines.map(|(line, _)| Of::Line(line)).chain((0..self.waiting.len()).map(Of::Waiting)).collect()
    }

    fn answer_on_line(&mut self, line: usize, said: &Said) {
        let Line { connection, server, state } = &mut self.lines[line];
        let State::InEvent(event, instance) = state else { return };
        let answer = said.of(event);
        let ask = connection.answer(0, &answer);
        event.answered(&answer, &mut self.instances[*instance].peers);
        event.check(&ask).unwrap();
        if let Some(decision) = event.decision() {
            *state = if matches!(ask, Ask::Pass) { State::Idle } else { State::Refused };
            self.servers[*server].as_mut().unwrap().count(decision);
        }
    }

    fn answer_waiting(&mut self, line: usize, position: usize, said: &Said) {
        let Waiting { id, event, .. } = &self.waiting[position];
        let (id, answer) = (*id, said.of(event));
        let ask = self.lines[line].connection.answer(id, &answer);
        let event = self.answered(position, &answer);
        event.check(&ask).unwrap();
        if event.decision().is_some() {
            self.after_last(line);
        }
    }

    /// What comes of an answer in the model.
    fn answered(&mut self, position: usize, answer: &Answer) -> Event {
        let waiting = &mut self.waiting[position];
        waiting.since = self.times.len() - 1;
        waiting.event.answered(answer, &mut self.instances[waiting.instance].peers);
        let event = waiting.event.clone();
        if let Some(decision) = event.decision() {
            let Waiting { id, server, .. } = self.waiting.swap_remove(position);
            self.ended.push(id);
            self.servers[server].as_mut().unwrap().count(decision);
        }
        event
    }

    fn answer_ended(&mut self, line: usize, id: u64) {
        let Line { connection, server, .. } = &mut self.lines[line];
        let here = *server;
        let ask = connection.answer(id, &Answer::Nil);
        assert_eq!(ask, Ask::Refuse(500, "An unexpected error occurred".into()));
        // The server whose id it is has counted it.
        let owner = self.alive().into_iter().find(|&number| {
            let run = self.server(number).running.server.siblings.run();
            crate::ids::Run::of(id) == Some(run)
        });
        self.servers[owner.unwrap_or(here)].as_mut().unwrap().count(("fault", "internal"));
        self.after_last(line);
    }

    fn drop_unread(&mut self, connection: &Index, event: &Index, said: &Said) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(line) = self.idle_line(connection, Some(Protocol::MsgPack)) else { return };
        let position = event.index(self.waiting.len());
        let answer = said.of(&self.waiting[position].event);
        self.lines[line].connection.send_answer(self.waiting[position].id, &answer);
        self.close_line(line);
        self.answered(position, &answer);
    }

    fn expire(&mut self, step: usize) {
        for number in self.alive() {
            self.server(number).running.expire(self.times[step]);
        }
        for gone in self.waiting.extract_if(.., |waiting| waiting.since < step) {
            self.servers[gone.server].as_mut().unwrap().abandoned += 1;
            self.ended.push(gone.id);
        }
    }

    /// All that waits is answered or given up; then nothing may be left anywhere.
    fn finish(mut self) {
        self.times.push(Instant::now());
        for line in 0..self.lines.len() {
            while matches!(self.lines[line].state, State::InEvent(..)) {
                self.answer_on_line(line, &Said::Rightly);
            }
        }
        // To the one at the path, so that it stays.
        if let Some(line) = self.connect(Protocol::MsgPack) {
            // Every other one.
            while self.waiting.len() > 1 {
                let before = self.waiting.len();
                while self.waiting.len() == before {
                    self.answer_waiting(line, 0, &Said::Rightly);
                }
                if self.waiting.len() > 1 {
                    let since = self.waiting[0].since;
                    self.expire(since + 1);
                }
            }
        }
        self.times.push(Instant::now());
        self.expire(self.times.len() - 1);
        self.check();
        for number in self.alive() {
            self.end(number);
        }
    }
}

/// Where an event is.
#[derive(Clone, Copy)]
enum Of {
    Line(usize),
    Waiting(usize),
}

impl Server {
    fn count(&mut self, decision: Decision) {
        *self.decisions.entry(decision).or_default() += 1;
    }

    /// Nothing runs, and what was counted is what happened.
    fn check_counts(&self) {
        self.running.wait_for_connections(0);
        self.running.wait_for_unfinished(0);
        let (decisions, running, abandoned) = self.running.counted();
        let expected: BTreeMap<_, _> = self
            .decisions
            .iter()
            .map(|((outcome, reason), count)| (((*outcome).to_owned(), (*reason).to_owned()), *count))
            .collect();
        assert_eq!((decisions, running, abandoned), (expected, 0, self.abandoned));
    }
}
