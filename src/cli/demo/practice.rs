//! `demo --practice`: an AWS to practise on. It has one service and nobody who deploys but you; the guardian, and every
//! other verb, is pointed at it by the usual environment.

use std::io::{self, BufRead as _, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::render;
use crate::model::{Moment, Role, ServiceKey, Split};
use crate::ports::Clock as _;
use crate::runtime::SystemClock;
use crate::sandbox::wire::{Sandbox, WireSettings};
use crate::sandbox::world::{Act, Crash, REGION, Setup, Timing, Version, World};

/// How often the world is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// From `deploy` to green's first users.
const CANARY: Duration = Duration::from_secs(3);

const HELP: &str = "\
deploy VERSION  create green with it beside blue, and give it a tenth of the users 3 s later.
                checkout:88 and checkout:90 crash 2 s after their start, any other version is sound
weights B G     give blue weight B and green weight G
promote         make green PRIMARY
undo            blue is PRIMARY, all weight to it, and delete green
finish          delete blue: green, PRIMARY and with all the weight, is the next blue
quit            end";

/// What a person types.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    Deploy(String),
    Weights(u32, u32),
    Promote,
    Undo,
    Finish,
    Help,
    Quit,
}

impl Order {
    fn read(line: &str) -> Result<Option<Self>, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let weight = |word: &str| {
            word.parse().ok().filter(|weight| *weight <= 999).ok_or_else(|| format!("{word:?} is no weight, 0 to 999"))
        };
        Ok(Some(match words.as_slice() {
            [] => return Ok(None),
            ["deploy", version] => Self::Deploy((*version).to_owned()),
            ["weights", blue, green] => Self::Weights(weight(blue)?, weight(green)?),
            ["promote"] => Self::Promote,
            ["undo"] => Self::Undo,
            ["finish"] => Self::Finish,
            ["help"] => Self::Help,
            ["quit" | "exit"] => Self::Quit,
            _ => return Err(format!("{line:?} is not understood; help lists what is")),
        }))
    }
}

/// Serves until `quit`, Ctrl-C, or SIGTERM.
pub(super) async fn practice(listen: SocketAddr, seed: u64, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let setup = setup();
    let service = setup.services.first().context("a world without a service")?.key.clone();
    let queue = format!("http://{listen}/queue/{}", setup.queue);
    let world = World::new(seed, SystemClock.now(), setup);
    let settings = WireSettings { listen, ..WireSettings::default() };
    let sandbox = Sandbox::start(world, Arc::new(SystemClock), settings).await;
    let sandbox = sandbox.with_context(|| format!("can't listen on {listen}; give another address as --listen"))?;
    writeln!(
        out,
        "An AWS to practise on, with one service, {service}. Say in every other terminal\n\n  \
         export AWS_ENDPOINT_URL={} AWS_REGION={REGION} AWS_ACCESS_KEY_ID=practice AWS_SECRET_ACCESS_KEY=practice\n\n\
         The guardian's queue is {queue}\n\n{HELP}\n",
        sandbox.endpoint()
    )?;
    let mut typed = typed();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut canary = None;
    let mut told = Split::default();
    loop {
        tokio::select! {
            line = typed.recv() => match Order::read(&line) {
                Ok(None) => {}
                Ok(Some(Order::Quit)) => break,
                Ok(Some(Order::Help)) => writeln!(out, "{HELP}")?,
                Ok(Some(order)) => {
                    let acts = acts(&order);
                    canary = matches!(order, Order::Deploy(_)).then(|| SystemClock.now().plus(CANARY));
                    sandbox.with(|world| acts.iter().for_each(|act| world.person(&service, act)));
                }
                Err(why) => render::note(&why, &mut anstream::stderr())?,
            },
            () = tokio::time::sleep(LOOK) => {}
            _ = tokio::signal::ctrl_c() => break,
            _ = terminate.recv() => break,
        }
        if canary.is_some_and(|at| at <= SystemClock.now()) {
            canary = None;
            sandbox.with(|world| world.person(&service, &Act::SetWeights { blue: 90, green: 10 }));
        }
        tell(&sandbox, &service, &mut told, out)?;
    }
    sandbox.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

fn setup() -> Setup {
    let crash = Crash { after: Duration::from_secs(2), exit_code: 1, out_of_memory: false };
    let bad = Version { start_delay: Duration::from_secs(2), crash: Some(crash), ..Version::default() };
    let versions = ["checkout:88", "checkout:90"].map(|name| (name.to_owned(), bad.clone())).into();
    let timing = Timing { deregistration: Duration::from_secs(2), ..Timing::default() };
    Setup { versions, timing, drain: Duration::ZERO, ..Setup::default() }
}

fn acts(order: &Order) -> Vec<Act> {
    match order {
        Order::Deploy(version) => vec![Act::CreateTaskSet { version: version.clone(), scale: 100.0 }],
        Order::Weights(blue, green) => vec![Act::SetWeights { blue: *blue, green: *green }],
        Order::Promote => vec![Act::SetPrimary(Role::Green)],
        Order::Undo => {
            vec![Act::SetPrimary(Role::Blue), Act::SetWeights { blue: 100, green: 0 }, Act::DeleteTaskSet(Role::Green)]
        }
        Order::Finish => vec![Act::DeleteTaskSet(Role::Blue)],
        Order::Help | Order::Quit => Vec::new(),
    }
}

/// Lines from the terminal. None any more when it is closed: then the world just goes on.
fn typed() -> Typed {
    let (send, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        // By bytes: a line that is no UTF-8 is not understood, and the next one may be.
        for line in io::stdin().lock().split(b'\n').map_while(Result::ok) {
            if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    Typed(lines)
}

struct Typed(mpsc::UnboundedReceiver<String>);

impl Typed {
    async fn recv(&mut self) -> String {
        match self.0.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }
}

/// What happened, and where the users are once they have moved.
fn tell(sandbox: &Sandbox<World>, service: &ServiceKey, told: &mut Split, out: &mut dyn Write) -> io::Result<()> {
    let (story, traffic) = sandbox.with(|world| (world.drain_story(), world.traffic(service)));
    for Moment { at, what } in story {
        writeln!(out, "{at}  {what}")?;
    }
    if let Some(split) = traffic.map(|view| view.configured).filter(|split| split != told) {
        let percent = |share: f64| share * 100.0;
        writeln!(out, "the rules give blue {:.0} % and green {:.0} %", percent(split.blue), percent(split.green))?;
        *told = split;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_or_refused_with_the_reason() {
        assert_eq!(Order::read(" deploy  checkout:88 "), Ok(Some(Order::Deploy("checkout:88".to_owned()))));
        assert_eq!(Order::read("weights 90 10"), Ok(Some(Order::Weights(90, 10))));
        assert_eq!(Order::read(""), Ok(None));
        assert_eq!(Order::read("undo\r"), Ok(Some(Order::Undo)));
        assert_eq!(acts(&Order::Undo)[0], Act::SetPrimary(Role::Blue), "the PRIMARY is not deleted");
        assert!(Order::read("weights 90 many").is_err_and(|why| why.contains("many")));
        assert!(Order::read("deplyo x").is_err_and(|why| why.contains("help")));
    }
}
