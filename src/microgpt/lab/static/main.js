/** Begins: the session of the address, else the first there is, else an invitation. */

import { html, render } from "./vendor/preact.js";
import { get } from "./api.js";
import { App } from "./app.js";
import { listen as listenToKeys } from "./keys.js";
import { complain, enter, listSessions } from "./session.js";
import { set, setView, state } from "./store.js";
import { followAddress, readAddress } from "./address.js";

async function begin() {
  const asked = readAddress();
  setView(asked.view);
  set({ options: await get("options") });
  await listSessions();
  const id = state.sessions.some((row) => row.session_id === asked.session) ? asked.session : state.sessions.at(-1)?.session_id;
  if (id) await enter(id, id === asked.session ? asked.at : null);
}

render(html`<${App} />`, document.body);
listenToKeys();
begin()
  .catch(complain)
  .finally(() => {
    set({ loaded: true });
    followAddress();
  });
