"""The dashboard of one model as a self-contained HTML file: its data, charts and sections."""
