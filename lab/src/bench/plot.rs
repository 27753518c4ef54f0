//! Draws a bar for each program.

use std::path::Path;

use plotters::prelude::*;

use xtask::steps::Failure;

/// Draws the bars. Those of vsrun have another colour.
pub fn bars(file: &Path, title: &str, figures: &[(String, f64)]) -> Result<(), Failure> {
    let drawn = draw(file, title, figures);
    drawn.map_err(|error| Failure::Message(format!("cannot draw {}: {error}", file.display())))
}

fn draw(
    file: &Path,
    title: &str,
    figures: &[(String, f64)],
) -> Result<(), Box<dyn std::error::Error>> {
    let height = 90 + 34 * figures.len();
    let area = SVGBackend::new(file, (820, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    area.draw(&Text::new(title, (20, 20), ("sans-serif", 18)))?;
    let top = figures
        .iter()
        .map(|(_, figure)| *figure)
        .fold(f64::MIN_POSITIVE, f64::max);
    for (index, (name, figure)) in figures.iter().enumerate() {
        let (x, y) = (180, 60 + 34 * index as i32);
        let width = (figure / top * 520.0) as i32;
        let colour = if name.starts_with("vsrun") {
            RGBColor(200, 60, 40)
        } else {
            RGBColor(110, 130, 190)
        };
        area.draw(&Rectangle::new(
            [(x, y), (x + width.max(1), y + 22)],
            colour.filled(),
        ))?;
        area.draw(&Text::new(name.clone(), (20, y + 3), ("sans-serif", 15)))?;
        let label = format!("{figure:.2}");
        area.draw(&Text::new(
            label,
            (x + width + 8, y + 3),
            ("sans-serif", 15),
        ))?;
    }
    area.present()?;
    Ok(())
}
