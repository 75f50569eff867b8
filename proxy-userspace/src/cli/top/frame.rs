//! What `top` draws: the same widgets on a terminal and as text.

use proxy_common::reason::Class;
use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table, Widget},
};

use super::rates::{Order, Rates, ServiceRate};

/// How it is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// With colours; without, what matters is bold.
    pub(super) colours: bool,
    /// What the Services are sorted by.
    pub(super) order: Order,
    /// Nothing is read at present.
    pub(super) paused: bool,
}

impl Look {
    fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }
}

/// Draws a frame into an area.
pub(super) fn draw(rates: &Rates, look: Look, area: Rect, buffer: &mut Buffer) {
    let head = head(rates, look);
    let rows = Layout::vertical([Constraint::Length(head.len() as u16), Constraint::Min(0)]);
    let [top, below] = rows.areas(area);
    Paragraph::new(head).render(top, buffer);
    services(rates, look).render(below, buffer);
}

/// Returns a frame as text, high enough for every Service.
pub(super) fn text(rates: &Rates, order: Order, width: u16) -> String {
    let look = Look { colours: false, order, paused: false };
    let height = head(rates, look).len() + 1 + rates.items.len();
    let area = Rect::new(0, 0, width, u16::try_from(height).unwrap_or(u16::MAX));
    let mut buffer = Buffer::empty(area);
    draw(rates, look, area, &mut buffer);
    let line = |y| -> String { (0..area.width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..area.height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

fn head(rates: &Rates, look: Look) -> Vec<Line<'static>> {
    let mut lines = vec![agent(rates, look), totals(rates, look), refusals(rates, look)];
    lines.extend(reasons(rates, look));
    let trouble = |text: &String| Line::styled(format!("! {text}"), look.bad());
    lines.extend(rates.troubles.iter().take(TROUBLES).map(trouble));
    if rates.troubles.len() > TROUBLES {
        let more = rates.troubles.len() - TROUBLES;
        lines.push(Line::styled(format!("! and {more} more: passlane status"), look.bad()));
    }
    lines.push(Line::default());
    lines
}

/// As many are named; the Services have to have room too.
const TROUBLES: usize = 3;

fn agent(rates: &Rates, look: Look) -> Line<'static> {
    let agent = match (rates.pid, rates.ready) {
        (Some(pid), true) => Span::raw(format!("agent {pid} ready")),
        (Some(pid), false) => Span::styled(format!("agent {pid} not ready"), look.bad()),
        (None, _) => Span::styled("no agent; forwarding goes on", look.bad()),
    };
    let fast_path = match rates.fast_path.as_str() {
        "" => "fast path unknown".to_owned(),
        mode => format!("fast path {mode}"),
    };
    let over = format!("over {:.1} s, by {}", rates.over_secs, look.order.word());
    let paused = if look.paused { "   PAUSED" } else { "" };
    Line::from(vec![
        Span::styled("passlane", look.bold()),
        Span::raw("   "),
        agent,
        Span::raw(format!("   {fast_path}   {over}{paused}")),
    ])
}

fn totals(rates: &Rates, look: Look) -> Line<'static> {
    let total = rates.total;
    let good = look.colour(Color::Green).add_modifier(Modifier::BOLD);
    Line::from(vec![
        Span::raw(format!("{} services, {} frontends   ", rates.services, rates.frontends)),
        Span::styled(format!("{} packets/s", number(total.packets)), look.bold()),
        Span::raw("   "),
        Span::styled(format!("{} fast", percent(rates.fast_share)), good),
        Span::raw(format!(
            "   {}B/s in   {}B/s out   {} connections/s",
            number(total.in_bytes),
            number(total.out_bytes),
            number(total.connections)
        )),
    ])
}

fn refusals(rates: &Rates, look: Look) -> Line<'static> {
    let drift = rates.drift;
    let drift = match drift.total() {
        0 => Span::raw("drift 0"),
        total => Span::styled(
            format!(
                "drift {total} ({} not in IPVS, {} not in maps, {} in maps only)",
                drift.missing_in_ipvs, drift.missing_in_maps, drift.stray_in_maps
            ),
            look.bad(),
        ),
    };
    let refused = format!(
        "refused/s: {} dropped, {} rejected   ",
        number(rates.dropped),
        number(rates.rejected)
    );
    Line::from(vec![Span::raw(refused), drift])
}

/// Says why packets were slow, and what the fast path learned.
fn reasons(rates: &Rates, look: Look) -> Vec<Line<'static>> {
    let of = |class: Class| {
        let rates = rates.reasons.iter().filter(move |each| each.class == class);
        rates.map(|each| format!("{} {}", each.reason, number(each.packets)))
    };
    let line = |title: &str, list: Vec<String>, style| {
        let text = if list.is_empty() { "none".to_owned() } else { list.join("   ") };
        Line::from(vec![Span::raw(format!("{title:11}")), Span::styled(text, style)])
    };
    vec![
        line("slow/s:", of(Class::Slow).collect(), look.colour(Color::Yellow)),
        line("learned/s:", of(Class::Learn).collect(), Style::new()),
    ]
}

const WIDTHS: [Constraint; 7] = [
    Constraint::Min(24),
    Constraint::Length(10),
    Constraint::Length(10),
    Constraint::Length(8),
    Constraint::Length(11),
    Constraint::Length(11),
    Constraint::Length(8),
];

fn services(rates: &Rates, look: Look) -> Table<'static> {
    let header = ["SERVICE", "PACKETS/S", "FAST/S", "FAST", "IN-BYTES/S", "OUT-BYTES/S", "CONNS/S"];
    let style = Style::new().add_modifier(Modifier::REVERSED);
    let rows = rates.items.iter().map(|item| Row::new(cells(item, look)));
    Table::new(rows, WIDTHS).column_spacing(2).header(Row::new(header).style(style))
}

fn cells(item: &ServiceRate, look: Look) -> [Cell<'static>; 7] {
    let rate = item.rate;
    let idle = rate.packets == 0.0;
    let plain = if idle { look.colour(Color::DarkGray) } else { Style::new() };
    let cell = |text: String| Cell::from(text).style(plain);
    [
        cell(item.service.clone()),
        cell(number(rate.packets)),
        cell(number(rate.fast_packets)),
        Cell::from(percent(item.fast_share)).style(look.colour(Color::Green)),
        cell(number(rate.in_bytes)),
        cell(number(rate.out_bytes)),
        cell(number(rate.connections)),
    ]
}

/// Shortens large numbers; small ones keep a digit after the point.
fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 100.0 => format!("{value:.1}"),
        value if value < 100_000.0 => format!("{value:.0}"),
        value if value < 1e8 => format!("{:.1}K", value / 1e3),
        value if value < 1e11 => format!("{:.1}M", value / 1e6),
        value => format!("{:.1}G", value / 1e9),
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::{super::rates::tests::rates, *};

    #[test]
    fn a_frame_shows_the_node_and_every_service() {
        let mut rates = rates(Order::Packets);
        rates.troubles = vec!["the API server does not answer".to_owned()];
        let text = text(&rates, Order::Packets, 110);
        let first = text.lines().next().unwrap();
        let expected = "passlane   agent 7 ready   fast path on   over 4.0 s, by packets";
        assert_eq!(first, expected);
        assert!(text.contains("refused/s: 0 dropped, 1.0 rejected   drift 0\n"), "{text}");
        assert!(text.contains("10150 packets/s   98.5% fast   507.5KB/s in"), "{text}");
        assert!(text.contains("\n! the API server does not answer\n"), "{text}");
        assert!(text.contains("slow/s:    no_flow 150\n"), "{text}");
        assert!(
            text.lines().any(|line| line.split_whitespace().eq([
                "default/web:http",
                "10100",
                "10000",
                "99.0%",
                "505.0K",
                "5050.0K",
                "10.0"
            ])),
            "{text}"
        );
        assert_eq!(text.lines().last().unwrap().split_whitespace().count(), 7, "{text}");
    }

    #[test]
    fn drift_says_where() {
        let mut rates = rates(Order::Packets);
        rates.drift.missing_in_maps = 2;
        let text = text(&rates, Order::Packets, 110);
        assert!(text.contains("drift 2 (0 not in IPVS, 2 not in maps, 0 in maps only)"), "{text}");
    }

    #[test]
    fn without_colours_no_cell_has_one() {
        let area = Rect::new(0, 0, 100, 20);
        let coloured = |colours| {
            let mut buffer = Buffer::empty(area);
            let look = Look { colours, order: Order::Packets, paused: false };
            draw(&rates(Order::Packets), look, area, &mut buffer);
            buffer.content().iter().any(|cell| cell.fg != Color::Reset)
        };
        assert!(!coloured(false));
        assert!(coloured(true));
    }

    #[test]
    fn a_terminal_that_is_too_small_shows_what_fits() {
        for (width, height) in [(1, 1), (10, 3), (40, 7), (0, 0)] {
            let area = Rect::new(0, 0, width, height);
            let look = Look { colours: true, order: Order::Name, paused: true };
            draw(&rates(Order::Packets), look, area, &mut Buffer::empty(area));
        }
    }

    #[test]
    fn numbers_are_short_and_keep_what_matters() {
        let shown = [0.0, 0.5, 99.94, 100.4, 99_999.0, 100_000.0, 1.5e8, 2.5e11].map(number);
        assert_eq!(shown, ["0", "0.5", "99.9", "100", "99999", "100.0K", "150.0M", "250.0G"]);
    }
}
