"""The world that the miniatures know: what can be in it, how it is drawn, told and recognised."""
