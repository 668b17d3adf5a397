"""Starts a thread as soon as it is imported, as some libraries do."""

import threading

worker = threading.Thread(target=threading.Event().wait, daemon=True)
worker.start()
