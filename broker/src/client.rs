//! One session with its socket: what any task may append to and write out.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::Waker;

use broker_core::Millis;
use broker_core::memory::Weight;
use broker_core::outbox::{Outbox, Outgoing};
use broker_core::packet::{PacketId, PacketType, ReasonCode};
use broker_core::rare::Rare;
use broker_core::session::{self, Session, Will, write_ack_reason};
use parking_lot::{Mutex, MutexGuard};

use crate::auth::access::Access;
use crate::listener::Port;
use crate::metrics::Category;
use crate::ordered::Ordered;
use crate::persistence::Persistence;
use crate::replay::Replay;
use crate::transport::Transport;

/// Above this many bytes that the socket did not take, publishers to this client are made to wait.
pub const OUTBOX_HIGH_BYTES: usize = 512 * 1024;
/// Above this many queued messages, publishers to this (connected) client are made to wait.
pub const QUEUE_HIGH_MESSAGES: usize = 10_000;
/// A client that took nothing for so long no longer holds publishers up; its messages are shed or queued.
pub const STALL_MS: u64 = 2_000;
/// Slices handed to one `writev`.
const SLICES_MAX: usize = 64;

/// A session and the connection that carries it, shared by everyone who has a message for it.
#[derive(Debug)]
pub struct Client {
    id: u64,
    client_id: Arc<str>,
    state: Mutex<State>,
}

/// What is behind the client's lock. The lock is never held across a system call.
#[derive(Debug)]
pub struct State {
    /// The MQTT session.
    pub session: Session,
    /// Packets for the client.
    pub outbox: Outbox,
    /// The connection, if there is one.
    pub connection: Option<Connection>,
    /// What it may do; nothing when it may do everything. Outlives the connection: a session that is away gets no more.
    pub access: Option<Arc<Access>>,
    /// Subscriptions that are fed in order, by filter as written.
    pub ordered: Rare<Vec<(Box<str>, Arc<Ordered>)>>,
    /// Subscriptions that retained messages are still due for.
    pub replays: Rare<VecDeque<Replay>>,
    /// Whom its messages are counted for, where it said so.
    pub category: Option<Arc<Category>>,
    /// What its socket does not take.
    untaken: Weight,
    /// Answers that wait for what is being written down, and those behind them [MQTT-4.6.0-2].
    owed: Rare<VecDeque<Owed>>,
    /// The last turn that has this client on its list of outboxes to write.
    pub touched: u64,
    /// Publishers that wait until the outbox has room.
    waiting: Rare<Vec<Waker>>,
}

/// An answer to the client.
#[derive(Debug)]
pub enum Answer {
    /// PUBACK, PUBREC or PUBCOMP; a PUBACK or PUBREC of a message that could not be written says so.
    Ack {
        /// Which.
        kind: PacketType,
        /// Of which exchange.
        id: PacketId,
        /// How it went, if what it waits for is written.
        reason: ReasonCode,
    },
    /// Whole packets: one for when what it waits for is written, and one for when it is not.
    Packet {
        /// What is said then.
        written: Box<[u8]>,
        /// What is said otherwise.
        refused: Box<[u8]>,
    },
}

/// An answer that waits.
#[derive(Debug)]
struct Owed {
    /// For the record of this number; 0 for its turn only.
    number: u64,
    answer: Answer,
}

/// The socket side of a connected session.
#[derive(Debug)]
pub struct Connection {
    /// Tells this connection from the ones before and after it.
    pub number: u64,
    /// Where it came in.
    pub port: Arc<Port>,
    /// When its credential ends, as the wall clock has it.
    pub expires: Option<Millis>,
    socket: Arc<Transport>,
    /// Some task is in the write system call.
    writing: bool,
    /// What the socket did not take.
    pending: Outgoing,
    /// The connection's own task, to be woken for a blocked socket or to close.
    waker: Option<Waker>,
    /// Why the connection's task must end.
    pub close: Option<Close>,
    /// When the client was last heard; keep-alive counts from here.
    pub heard: Millis,
    /// One and a half times the keep-alive [MQTT-3.1.2-22]; 0 is none.
    pub silence_ms_max: u64,
    /// When the socket last took bytes while some waited.
    progress: Millis,
}

/// How a client came in.
#[derive(Debug)]
pub struct Arrival {
    /// The socket.
    pub socket: Arc<Transport>,
    /// Where.
    pub port: Arc<Port>,
    /// When its credential ends, as the wall clock has it.
    pub expires: Option<Millis>,
    /// What it may do; nothing when it may do everything.
    pub access: Option<Arc<Access>>,
}

/// Why a connection ends, said by somebody else than its own task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// What a v5 client is told.
    pub reason: ReasonCode,
}

impl Client {
    /// A client without connection.
    pub fn new(session: Session) -> Arc<Self> {
        let id = session.id();
        Arc::new(Self {
            id,
            client_id: Arc::clone(session.client_id()),
            state: Mutex::new(State {
                session,
                outbox: Outbox::default(),
                connection: None,
                access: None,
                ordered: Rare::none(),
                replays: Rare::none(),
                category: None,
                untaken: Weight::default(),
                owed: Rare::none(),
                touched: 0,
                waiting: Rare::none(),
            }),
        })
    }

    /// Its number in the router.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its client identifier.
    pub fn id_text(&self) -> &str {
        &self.client_id
    }

    /// The state, locked.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Writes out what waits, as far as the socket takes it. The lock is not held while writing; whoever
    /// appends meanwhile is served by the same call. Returns how many bytes it took.
    pub fn flush(&self, now: Millis, pool: &mut Vec<Vec<u8>>) -> u64 {
        let mut written = 0;
        loop {
            let Some((number, socket, mut outgoing)) = self.lock().start_write(pool) else { return written };
            let before = outgoing.left();
            let result = write(&socket, &mut outgoing);
            written += (before - outgoing.left()) as u64;
            if !self.lock().finish_write(number, outgoing, result, now, pool) {
                return written;
            }
        }
    }

    /// Asks the connection to end.
    pub fn kick(&self, reason: ReasonCode) {
        self.lock().kick(reason);
    }
}

impl State {
    /// The subscription with this filter is fed in order from now on, or no longer. Ends the one that was before: what
    /// it holds is delivered.
    pub fn order(&mut self, filter: &str, ordered: Option<Arc<Ordered>>) {
        if let Some(all) = self.ordered.get_mut()
            && let Some(at) = all.iter().position(|(known, _)| **known == *filter)
        {
            all.swap_remove(at).1.end();
        }
        if let Some(ordered) = ordered {
            self.ordered.make().push((filter.into(), ordered));
        }
    }

    /// The session is over: nothing waits for its turn any more.
    pub fn end_ordered(&mut self) {
        for (_, ordered) in self.ordered.take() {
            ordered.end();
        }
    }

    /// Makes `socket` the session's connection; the outbox starts empty.
    pub fn attach(&mut self, number: u64, arrival: Arrival, silence_ms_max: u64, now: Millis) {
        let Arrival { socket, port, expires, access } = arrival;
        self.access = access;
        // Nothing goes out before the CONNACK [MQTT-3.2.0-1]: until the session is opened, messages wait in it.
        self.session.close(now);
        self.outbox.clear();
        self.untaken.set(0);
        self.owed.clear();
        self.touched = 0;
        self.release();
        self.connection = Some(Connection {
            number,
            port,
            expires,
            socket,
            writing: false,
            pending: Outgoing::default(),
            waker: None,
            close: None,
            heard: now,
            silence_ms_max,
            progress: now,
        });
    }

    /// Takes the connection off, if it is still this one. True when it was.
    pub fn detach(&mut self, number: u64) -> bool {
        let mine = self.connection.as_ref().is_some_and(|c| c.number == number);
        if mine {
            self.connection = None;
            self.outbox.clear();
            self.untaken.set(0);
            self.owed.clear();
            self.release();
        }
        mine
    }

    /// Answers the client: once the record `number` is written, and in the order of the answers. 0 waits for none.
    pub fn answer(&mut self, number: u64, answer: Answer, persistence: Option<&Persistence>) {
        match persistence {
            Some(persistence) if number > 0 || self.owed() > 0 => {
                self.owed.make().push_back(Owed { number, answer });
                // What it waits for may have been told while it was made.
                self.settle(persistence);
            }
            _ => self.write(answer, false),
        }
    }

    /// The connection ends, and gets none of the answers that wait.
    pub fn leave_unanswered(&mut self, reason: ReasonCode) {
        self.owed.clear();
        self.kick(reason);
    }

    /// Answers that wait.
    pub fn owed(&self) -> usize {
        self.owed.get().map_or(0, VecDeque::len)
    }

    /// The record that the last acknowledgement of this exchange waits for; 0 when none waits.
    pub fn owed_of(&self, exchange: PacketId) -> u64 {
        let is_of = |owed: &&Owed| matches!(owed.answer, Answer::Ack { id, .. } if id == exchange);
        let last = self.owed.get().and_then(|all| all.iter().rev().find(is_of));
        last.map_or(0, |owed| owed.number)
    }

    /// Sends the answers whose records are written.
    pub fn settle(&mut self, persistence: &Persistence) {
        let is_due = |owed: &mut Owed| persistence.is_decided(owed.number);
        while let Some(Owed { number, answer }) =
            self.owed.get_mut().and_then(|owed| owed.pop_front_if(is_due))
        {
            self.write(answer, number > 0 && persistence.is_refused(number));
        }
    }

    fn write(&mut self, answer: Answer, refused: bool) {
        let Some(version) = self.session.link().map(|link| link.version) else { return };
        match answer {
            Answer::Ack { kind, id, reason } => {
                let reason = if refused { ReasonCode::UnspecifiedError } else { reason };
                let taken = matches!(kind, PacketType::PubAck | PacketType::PubRec);
                if taken && reason.is_error() && !version.is_v5() {
                    // There is no other way to say it: 3.1.1 [MQTT-3.3.5-2].
                    return self.kick(reason);
                }
                write_ack_reason(version, kind, id, reason, &mut self.outbox);
            }
            Answer::Packet { written, refused: no } => {
                self.outbox.buffer().extend_from_slice(if refused { &no } else { &written });
            }
        }
    }

    /// The connection, if it is this one.
    pub fn own(&mut self, number: u64) -> Option<&mut Connection> {
        self.connection.as_mut().filter(|c| c.number == number)
    }

    /// Whether a will may be published: its client may have lost the right to since it was left here.
    pub fn may_publish(&self, will: &Will) -> bool {
        self.access.as_ref().is_none_or(|access| access.may_publish(will.message.topic()))
    }

    /// Asks the connection's task to end.
    pub fn kick(&mut self, reason: ReasonCode) {
        if let Some(connection) = &mut self.connection {
            connection.close.get_or_insert(Close { reason });
            connection.wake();
        }
    }

    /// Bytes that wait for the socket.
    pub fn backlog(&self) -> usize {
        self.outbox.len() + self.connection.as_ref().map_or(0, |connection| connection.pending.left())
    }

    /// The socket takes more, and something waits that could be sent.
    pub fn has_more(&self, limits: &session::Limits) -> bool {
        let free = self.connection.as_ref().is_some_and(|connection| connection.pending.left() == 0);
        free && (self.session.is_held_back(limits, &self.outbox) || self.takes_retained(limits))
    }

    /// Whether nothing is half written: what is said now comes whole.
    pub fn is_between_packets(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.pending.left() == 0 && !connection.writing)
    }

    /// More waits for this client than it should; whoever publishes to it should wait too.
    pub fn congested(&self, now: Millis) -> bool {
        let Some(connection) = &self.connection else { return false };
        let waiting = self.backlog() > OUTBOX_HIGH_BYTES || self.session.queued() > QUEUE_HIGH_MESSAGES;
        waiting && now.since(connection.progress) < STALL_MS
    }

    /// Remembers a publisher that waits for room.
    pub fn wait(&mut self, waker: &Waker) {
        let waiting = self.waiting.make();
        if !waiting.iter().any(|w| w.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    /// Lets the waiting publishers go on.
    pub fn release(&mut self) {
        self.waiting.get_mut().into_iter().flat_map(|waiting| waiting.drain(..)).for_each(Waker::wake);
    }

    fn start_write(&mut self, pool: &mut Vec<Vec<u8>>) -> Option<(u64, Arc<Transport>, Outgoing)> {
        self.touched = 0;
        let connection = self.connection.as_mut()?;
        if connection.writing {
            return None;
        }
        let outgoing = if connection.pending.left() > 0 {
            std::mem::take(&mut connection.pending)
        } else if !self.outbox.is_empty() {
            self.outbox.take(pool.pop().unwrap_or_default())
        } else {
            return None;
        };
        connection.writing = true;
        Some((connection.number, Arc::clone(&connection.socket), outgoing))
    }

    /// True when there is more to write at once.
    fn finish_write(
        &mut self,
        number: u64,
        outgoing: Outgoing,
        result: io::Result<bool>,
        now: Millis,
        pool: &mut Vec<Vec<u8>>,
    ) -> bool {
        let Some(connection) = self.connection.as_mut().filter(|c| c.number == number) else { return false };
        connection.writing = false;
        match result {
            // 3.1.1 [MQTT-4.8.0-2]
            Err(_) => {
                connection.close.get_or_insert(Close { reason: ReasonCode::UnspecifiedError });
                connection.wake();
                false
            }
            Ok(progressed) => {
                if progressed {
                    connection.progress = now;
                }
                if outgoing.left() > 0 {
                    self.untaken.set(outgoing.left() + self.outbox.len());
                    connection.pending = outgoing;
                    connection.wake();
                    return false;
                }
                if self.session.queued() > 0 || self.replays.get().is_some_and(|replays| !replays.is_empty())
                {
                    // There is room again for what waits.
                    connection.wake();
                }
                self.untaken.set(0);
                recycle(pool, outgoing.recycle());
                if self.outbox.is_empty() && self.outbox.buffer().capacity() > 0 {
                    recycle(pool, std::mem::take(self.outbox.buffer()));
                }
                if self.waiting.get().is_some_and(|waiting| !waiting.is_empty())
                    && self.session.queued() <= QUEUE_HIGH_MESSAGES / 2
                {
                    self.release();
                }
                !self.outbox.is_empty()
            }
        }
    }
}

impl Connection {
    /// The socket did not take everything: its task must wait for it to be writable.
    pub fn blocked(&self) -> bool {
        self.pending.left() > 0 && !self.writing
    }

    /// Notes whom to wake.
    pub fn register(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// Buffers are kept for the next turn, not for each client: an idle client holds none.
pub fn recycle(pool: &mut Vec<Vec<u8>>, mut buffer: Vec<u8>) {
    const BUFFERS_MAX: usize = 256;
    const BYTES_MAX: usize = 1 << 20;
    if pool.len() < BUFFERS_MAX && (1..=BYTES_MAX).contains(&buffer.capacity()) {
        // Its bytes were somebody's: the next one gets none of them.
        buffer.clear();
        pool.push(buffer);
    }
}

/// Writes until done or the socket takes no more. Whether anything was taken.
fn write(socket: &Transport, outgoing: &mut Outgoing) -> io::Result<bool> {
    let mut progressed = false;
    while outgoing.left() > 0 {
        let result = match outgoing.contiguous() {
            Some(bytes) => socket.try_write(bytes),
            None => {
                let mut slices = Vec::with_capacity(SLICES_MAX);
                outgoing.slices(SLICES_MAX, |slice| slices.push(io::IoSlice::new(slice)));
                socket.try_write_vectored(&slices)
            }
        };
        match result {
            Ok(n) => {
                outgoing.advance(n);
                progressed = true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(progressed)
}
