//! All ports together: bound at the start, and brought in line with the resources when those change.
//!
//! A change is planned as a whole first ([`plan`]); new ports are bound; and only then is anything replaced. Whatever goes
//! wrong before leaves everything as it was.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use broker_core::packet::ReasonCode;
use config::Loaded;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::admission::{Admission, Limits};
use super::plan::{Plan, PortPlan, Surroundings, plan};
use super::port::{Port, Protocol, Settings};
use super::seen::Seen;
use super::{bind, run};
use crate::auth::access::Guard;
use crate::auth::{Authentication, Method, PasswordFile};
use crate::broker::Broker;
use crate::cli;
use crate::serve::ServeError;

/// Where plain MQTT is taken when nothing is said.
const ADDRESS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);

/// How long after a change that could not be made another try is due by itself.
const RETRY: Duration = Duration::from_secs(60);

/// All ports.
pub struct Listeners {
    surroundings: Surroundings,
    password_file: Option<PathBuf>,
    admission: Arc<Admission>,
    running: OnceLock<Running>,
    state: Mutex<State>,
}

/// What the tasks that accept need.
#[derive(Clone)]
struct Running {
    broker: Arc<Broker>,
    stop: watch::Receiver<bool>,
}

#[derive(Default)]
struct State {
    /// Those of the command line.
    own: Vec<Arc<Port>>,
    /// Those of resources.
    ports: Vec<Known>,
    /// Policies by the names of their resources.
    guards: HashMap<String, Arc<Guard>>,
    /// Bound, but not accepted from yet.
    waiting: Vec<(TcpListener, Arc<Port>)>,
    /// Files that the ports depend on, beside those of the resources.
    files: Vec<Seen>,
    authority: Option<PathBuf>,
    renew: Option<SystemTime>,
}

/// A port of a resource.
struct Known {
    name: String,
    wanted: (Option<IpAddr>, u16),
    remark: Option<&'static str>,
    port: Arc<Port>,
}

impl Listeners {
    /// Binds everything that the command line and the resources ask for.
    ///
    /// # Errors
    /// Whatever keeps a port from being what it should.
    pub fn bind(options: &cli::Serve, loaded: &Loaded) -> Result<Self, ServeError> {
        let surroundings = Surroundings {
            data_dir: options.data_dir.clone(),
            allow_anonymous: options.allow_anonymous,
            dry: false,
        };
        let (planned, files) = plan(loaded, &surroundings);
        let plan = planned.map_err(|faults| ServeError::Listeners(faults.join("\n  ")))?;
        let admission = Admission::new(limits(options));
        let password_file = options.password_file.clone();
        let listeners = Self {
            surroundings,
            password_file,
            admission,
            running: OnceLock::new(),
            state: Mutex::default(),
        };
        let mut state = State { files, ..State::default() };
        state.files.extend(listeners.password_file.as_deref().map(Seen::now));
        let settings = listeners.own_settings().map_err(ServeError::Start)?;
        let own = match (options.listen.as_slice(), plan.ports.is_empty()) {
            ([], true) => vec![ADDRESS_DEFAULT],
            (addresses, _) => addresses.to_vec(),
        };
        for address in own {
            if !address.ip().is_loopback() && settings.authentication.is_none() && !options.allow_anonymous {
                return Err(ServeError::Exposed(address));
            }
            let (socket, port) = open(address, settings.clone())?;
            state.own.push(Arc::clone(&port));
            state.waiting.push((socket, port));
        }
        for (wanted, socket, address) in
            bind_new(&plan, &[]).map_err(|(address, error)| ServeError::Bind { address, error })?
        {
            let port = Port::new(address, Settings::open());
            state.waiting.push((socket, Arc::clone(&port)));
            state.ports.push(Known { name: String::new(), wanted, remark: None, port });
        }
        state.apply(plan);
        *listeners.state.lock() = state;
        Ok(listeners)
    }

    /// Accepts connections for this broker from now on.
    pub fn run(&self, broker: &Arc<Broker>, stop: &watch::Receiver<bool>) {
        let running = Running { broker: Arc::clone(broker), stop: stop.clone() };
        let running = self.running.get_or_init(|| running);
        let waiting = std::mem::take(&mut self.state.lock().waiting);
        for (socket, port) in waiting {
            self.accept(running, socket, port);
        }
    }

    fn accept(&self, running: &Running, socket: TcpListener, port: Arc<Port>) {
        let Running { broker, stop } = running.clone();
        tokio::spawn(run(socket, port, broker, Arc::clone(&self.admission), stop));
    }

    /// Brings all ports in line with the resources as they are now.
    ///
    /// # Errors
    /// What is wrong with them; nothing was changed then.
    pub fn reload(&self, loaded: &Loaded) -> Result<(), Vec<String>> {
        // A file that cannot be read may have held anything.
        let mut faults: Vec<String> = loaded
            .findings
            .iter()
            .filter(|finding| finding.is_error() && finding.resource.is_none())
            .map(ToString::to_string)
            .collect();
        let (planned, mut files) = plan(loaded, &self.surroundings);
        files.extend(self.password_file.as_deref().map(Seen::now));
        let plan = planned.unwrap_or_else(|more| {
            faults.extend(more);
            Plan::default()
        });
        let own = self.own_settings().inspect_err(|fault| faults.push(fault.clone())).ok();
        let mut state = self.state.lock();
        // What a change waits for is watched even where it cannot be made yet.
        state.files.retain(|old| files.iter().all(|new| new.path != old.path));
        state.files.extend(files.iter().cloned());
        let (true, Some(own)) = (faults.is_empty(), own) else {
            // A certificate that is due is tried again, but not every second.
            state.renew = state.renew.map(|renew| renew.max(SystemTime::now() + RETRY));
            return Err(faults);
        };
        let bound = bind_new(&plan, &state.ports)
            .map_err(|(address, error)| vec![format!("cannot listen on {address}: {error}")])?;
        state.files = files;
        for (wanted, socket, address) in bound {
            let port = Port::new(address, Settings::open());
            state.ports.push(Known { name: String::new(), wanted, remark: None, port: Arc::clone(&port) });
            state.waiting.push((socket, port));
        }
        for port in &state.own {
            port.replace(own.clone());
        }
        let changed = state.apply(plan);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        if let Some(running) = self.running.get() {
            for (socket, port) in waiting {
                tracing::info!("listening on {} from now on", port.address);
                self.accept(running, socket, port);
            }
            send_away(&running.broker, &changed);
        }
        Ok(())
    }

    /// What holds for the ports of the command line.
    fn own_settings(&self) -> Result<Settings, String> {
        let authentication = match &self.password_file {
            Some(path) => {
                Some(Arc::new(Authentication::new(vec![Method::Password(PasswordFile::load(path)?)])))
            }
            None => None,
        };
        Ok(Settings { authentication, ..Settings::open() })
    }

    /// Files that the ports depend on, beside those of the resources, as they were when they were read.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().files.clone()
    }

    /// Whether a certificate has to be made anew.
    pub fn is_due(&self) -> bool {
        self.state.lock().renew.is_some_and(|renew| renew <= SystemTime::now())
    }

    /// The first port that anybody can use from this machine without credentials or TLS, or else the first of all.
    pub fn first(&self) -> Option<SocketAddr> {
        let state = self.state.lock();
        state.own.first().or(state.ports.first().map(|known| &known.port)).map(|port| port.address)
    }

    /// A line for each port, and what to try.
    pub fn banner(&self) -> String {
        let state = self.state.lock();
        let mut text = String::new();
        for port in &state.own {
            line(&mut text, port, None, None);
        }
        for Known { name, port, remark, .. } in &state.ports {
            line(&mut text, port, Some(name), *remark);
        }
        if let Some(authority) = &state.authority {
            let _ = write!(text, "\n  clients of tls.mode Automatic trust {}", authority.display());
        }
        text
    }

    /// What to try, as a line.
    pub fn hint(&self) -> Option<String> {
        let state = self.state.lock();
        let open = state.own.iter().find(|port| port.settings().authentication.is_none())?;
        Some(format!("\ntry: mosquitto_sub -p {} -t '#' -v", open.address.port()))
    }
}

impl State {
    /// Lets a plan hold; every port of it is bound. Whose clients may do something else than before.
    fn apply(&mut self, plan: Plan) -> Changed {
        let Plan { ports, authority, renew } = plan;
        (self.authority, self.renew) = (authority, renew);
        let mut changed = Changed::default();
        let before: Vec<_> = std::mem::take(&mut self.ports);
        for PortPlan { name, address, port, mut settings, authorization, remark } in ports {
            let wanted = (address, port);
            let Some(known) = before.iter().find(|known| known.wanted == wanted) else { continue };
            settings.guard = authorization.map(|(name, policy)| self.guard(name, policy, &mut changed));
            let old = known.port.settings();
            let same = match (&old.guard, &settings.guard) {
                (None, None) => true,
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                _ => false,
            };
            // Whoever came in when nobody was asked has to come again and be asked.
            let asks_now = settings.authentication.is_some() && old.authentication.is_none();
            if !same || asks_now {
                changed.ports.push(Arc::clone(&known.port));
            }
            known.port.replace(settings);
            self.ports.push(Known { name, wanted, remark, port: Arc::clone(&known.port) });
        }
        for gone in before.iter().filter(|known| self.ports.iter().all(|kept| kept.wanted != known.wanted)) {
            tracing::info!("{} is not listened on any more; clients that are there stay", gone.port.address);
            gone.port.close();
        }
        changed
    }

    fn guard(
        &mut self,
        name: String,
        policy: crate::auth::policy::Policy,
        changed: &mut Changed,
    ) -> Arc<Guard> {
        match self.guards.get(&name) {
            Some(guard) => {
                if guard.replace(policy) {
                    changed.guards.push(Arc::clone(guard));
                }
                Arc::clone(guard)
            }
            None => {
                let guard = Guard::new(policy);
                self.guards.insert(name, Arc::clone(&guard));
                guard
            }
        }
    }
}

/// Whose clients may do something else than before.
#[derive(Default)]
struct Changed {
    guards: Vec<Arc<Guard>>,
    ports: Vec<Arc<Port>>,
}

/// A policy that changes disconnects the clients that it is for (AIO.md §5.9); they come back to the new one.
fn send_away(broker: &Broker, changed: &Changed) {
    if changed.guards.is_empty() && changed.ports.is_empty() {
        return;
    }
    for client in broker.clients() {
        let mut state = client.lock();
        let under = |guard| state.access.as_ref().is_some_and(|access| access.is_under(guard));
        let of =
            |port| state.connection.as_ref().is_some_and(|connection| Arc::ptr_eq(&connection.port, port));
        if changed.guards.iter().any(under) || changed.ports.iter().any(of) {
            state.kick(ReasonCode::AdministrativeAction);
        }
    }
}

fn limits(options: &cli::Serve) -> Limits {
    Limits {
        connections: options.connections,
        per_address: options.connections_per_address.unwrap_or(Limits::PER_ADDRESS),
        rate_per_address: options.connection_rate.unwrap_or(Limits::RATE_PER_ADDRESS),
        limits_loopback: options.connections_per_address.is_some() || options.connection_rate.is_some(),
        handshake: options.handshake_timeout.into(),
        handshake_bytes: Limits::HANDSHAKE_BYTES,
    }
}

fn open(address: SocketAddr, settings: Settings) -> Result<(TcpListener, Arc<Port>), ServeError> {
    let fail = |error| ServeError::Bind { address, error };
    let socket = bind(address).map_err(fail)?;
    let bound = socket.local_addr().map_err(fail)?;
    Ok((socket, Port::new(bound, settings)))
}

/// A port that was bound: what it was wanted for, and where it is.
type Bound = ((Option<IpAddr>, u16), TcpListener, SocketAddr);

/// Binds the ports of a plan that are not known yet.
fn bind_new(plan: &Plan, known: &[Known]) -> Result<Vec<Bound>, (SocketAddr, io::Error)> {
    let mut bound: Vec<Bound> = Vec::new();
    for port in &plan.ports {
        let wanted = (port.address, port.port);
        if known.iter().any(|known| known.wanted == wanted) {
            continue;
        }
        let (socket, address) =
            match port.address {
                Some(ip) => bind_at(SocketAddr::new(ip, port.port))?,
                // One socket for both families, where there are two.
                None => bind_at(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port.port)).or_else(
                    |(_, error)| match error.kind() {
                        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => {
                            Err((SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port.port), error))
                        }
                        _ => bind_at(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port.port)),
                    },
                )?,
            };
        bound.push((wanted, socket, address));
    }
    Ok(bound)
}

fn bind_at(address: SocketAddr) -> Result<(TcpListener, SocketAddr), (SocketAddr, io::Error)> {
    let socket = bind(address).map_err(|error| (address, error))?;
    let bound = socket.local_addr().map_err(|error| (address, error))?;
    Ok((socket, bound))
}

fn line(text: &mut String, port: &Port, name: Option<&str>, remark: Option<&str>) {
    let settings = port.settings();
    let protocol = match (settings.protocol, settings.tls.is_some()) {
        (Protocol::Mqtt, false) => "mqtt ",
        (Protocol::Mqtt, true) => "mqtts",
        (Protocol::WebSockets, false) => "ws   ",
        (Protocol::WebSockets, true) => "wss  ",
    };
    let tls = if settings.tls.is_some() { "TLS" } else { "no TLS" };
    let who = match (&settings.authentication, &settings.guard) {
        (None, _) => "anonymous",
        (Some(_), None) => "authenticated",
        (Some(_), Some(_)) => "authenticated and authorized",
    };
    let _ = write!(text, "\n  {protocol}  {}  (3.1, 3.1.1 and 5, {tls}, {who})", port.address);
    if let Some(name) = name {
        let _ = write!(text, "  {name}");
    }
    if let Some(remark) = remark {
        let _ = write!(text, "; {remark}");
    }
}
