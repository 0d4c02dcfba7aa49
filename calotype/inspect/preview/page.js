// The comforts of the preview page.
