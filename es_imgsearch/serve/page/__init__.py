"""The gallery: pages rendered here, which work without JavaScript."""
