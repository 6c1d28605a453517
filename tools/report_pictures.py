"""The README's pictures, docs/report-light.png and docs/report-dark.png, from reports/index.html.

Needs chromium. Usage: python tools/report_pictures.py [reports/index.html] [docs]
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

page = Path(sys.argv[1] if len(sys.argv) > 1 else "reports/index.html")
out = Path(sys.argv[2] if len(sys.argv) > 2 else "docs")
html = page.read_text(encoding="utf-8")
rates = next(f for f in re.findall(r"<figure.*?</figure>", html, re.S) if "Figure 2b." in f)
memory = re.search(r'<section id="memory".*?</section>', html, re.S)[0]
head = (
    html[: html.index("</style>")] + "main { margin-top: -12px; padding: 0 21px; }</style></head>"
)
with tempfile.TemporaryDirectory() as folder:
    cut = Path(folder, "cut.html")
    cut.write_text(f"{head}<body><main>{rates}{memory}</main></body></html>", encoding="utf-8")
    for name, scheme in (("light", 1), ("dark", 0)):
        shot = Path(folder, f"{name}.png")
        subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--blink-settings=preferredColorScheme={scheme}",
                "--window-size=1160,2000",
                "--force-device-scale-factor=2",
                f"--screenshot={shot}",
                cut.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        image = Image.open(shot).convert("RGB")
        ground = Image.new("RGB", image.size, image.getpixel((2, image.height - 2)))
        bottom = ImageChops.difference(image, ground).getbbox()[3]
        picture = image.crop((0, 0, image.width, bottom + 38))
        picture = picture.resize(
            (1000, round(picture.height * 1000 / picture.width)), Image.Resampling.LANCZOS
        )
        picture = picture.quantize(
            256, method=Image.Quantize.MAXCOVERAGE, kmeans=8, dither=Image.Dither.NONE
        )
        picture.save(out / f"report-{name}.png", optimize=True)
        print(out / f"report-{name}.png", picture.size)
