"use strict";
// The secret is the fragment of the link. It stays in this browser: the server gets an id that is derived from it, and what the
// server answers is decrypted here.
(() => {
  const element = (id) => document.getElementById(id);
  const SECTIONS = ["invitation", "done", "unusable", "retry", "insecure"];
  const encoder = new TextEncoder();

  // A link that was used, has expired, or never existed.
  class Unusable extends Error {}

  function say(text) {
    element("status").textContent = text;
  }

  // Shows one section. `focus` tells the users of screen readers and keyboards that the page has changed.
  function show(section, title, focus) {
    for (const id of SECTIONS) element(id).hidden = id !== section;
    element("title").textContent = title;
    document.title = title;
    say("");
    if (focus) element("title").focus();
  }

  function bytesOf(base64) {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  }

  function secretOf(fragment) {
    if (!/^[A-Za-z0-9_-]{43}$/.test(fragment)) return null;
    return bytesOf(fragment.replace(/-/g, "+").replace(/_/g, "/") + "=");
  }

  async function derived(secret, purpose) {
    const key = await crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    return new Uint8Array(await crypto.subtle.sign("HMAC", key, encoder.encode("deltashare activation " + purpose)));
  }

  async function decrypted(secret, purpose, bytes) {
    const key = await crypto.subtle.importKey("raw", await derived(secret, purpose), "AES-GCM", false, ["decrypt"]);
    const text = await crypto.subtle.decrypt({ name: "AES-GCM", iv: bytes.subarray(0, 12) }, key, bytes.subarray(12));
    return new TextDecoder().decode(text);
  }

  // Asks the server at the path of this page, whatever is before its last segment.
  async function ask(secret, below) {
    const id = Array.from(await derived(secret, "id"), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const answer = await fetch(location.origin + location.pathname.replace(/\/+$/, "") + below, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ id }),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
    if (answer.status === 404) throw new Unusable();
    if (!answer.ok) throw new Error("status " + answer.status);
    return bytesOf((await answer.json()).ciphertext);
  }

  function unusable(focus) {
    show("unusable", "This link cannot be used", focus);
  }

  function retry(reason, again) {
    element("reason").textContent = reason;
    element("again-later").onclick = again;
    show("retry", "The server did not answer", true);
  }

  function timeElement(text) {
    const time = document.createElement("time");
    time.dateTime = text;
    time.textContent = new Date(text).toLocaleString("en", {
      year: "numeric", month: "long", day: "numeric", hour: "numeric", minute: "2-digit", timeZoneName: "short",
    });
    return time;
  }

  // Names that do not mix with the text around them, whatever their direction.
  function names(list) {
    return list.flatMap((name, at) => {
      const isolated = document.createElement("bdi");
      isolated.textContent = name;
      return at === 0 ? [isolated] : [", ", isolated];
    });
  }

  async function invite(secret) {
    say("Opening the invitation…");
    let invitation;
    try {
      invitation = JSON.parse(await decrypted(secret, "invitation", await ask(secret, "/invitation")));
    } catch (error) {
      if (error instanceof Unusable) return unusable(false);
      const reason = "The invitation cannot be shown at the moment. The link was not used. Try again in a minute.";
      return retry(reason, () => invite(secret));
    }
    const server = new URL(invitation.endpoint).host;
    element("provider").textContent = invitation.provider || server;
    element("recipient").textContent = invitation.recipient;
    element("server").textContent = server;
    element("shares").replaceChildren(...(invitation.shares.length ? names(invitation.shares) : ["none yet"]));
    element("access").replaceChildren(invitation.tokenExpires ? timeElement(invitation.tokenExpires) : "no end");
    element("link").replaceChildren(timeElement(invitation.linkExpires));
    element("activate").disabled = false;
    element("activate").onclick = () => activate(secret, invitation.recipient);
    show("invitation", "Invitation to shared data", false);
  }

  async function activate(secret, recipient) {
    element("activate").disabled = true;
    say("Getting the profile…");
    let profile;
    try {
      profile = await decrypted(secret, "profile", await ask(secret, ""));
    } catch (error) {
      if (error instanceof Unusable) return unusable(true);
      const reason = "The profile did not arrive. Try again. If the link then cannot be used, ask the person who sent it for a new one.";
      return retry(reason, () => activate(secret, recipient));
    }
    // Of no use any more, and better not in the history.
    history.replaceState(null, "", location.pathname);
    done(profile, (recipient.replace(/[^\p{L}\p{N}._-]+/gu, "_").replace(/^\.+/, "") || "profile") + ".share");
  }

  function done(profile, name) {
    element("file").textContent = name;
    element("example").textContent = `import delta_sharing\n\nclient = delta_sharing.SharingClient("${name}")\nprint(client.list_all_tables())`;
    element("again").onclick = () => download(profile, name);
    element("copy").hidden = !navigator.clipboard;
    element("copy").onclick = async () => {
      try {
        await navigator.clipboard.writeText(profile);
        say("The text of the profile is in the clipboard. Save it as " + name + ".");
      } catch {
        say("The browser does not allow copying. Use the download.");
      }
    };
    show("done", "Your profile is ready", true);
    download(profile, name);
    const page = element("page");
    if (page) {
      // The page that opens profiles. Until now the link led nowhere, so that scanners had nothing to follow.
      page.href = location.origin + location.pathname.replace(/activate\/*$/, "");
      element("browse").hidden = false;
    }
  }

  function download(profile, name) {
    const url = URL.createObjectURL(new Blob([profile], { type: "application/octet-stream" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }

  // Another link that is pasted into the address bar of this page.
  addEventListener("hashchange", () => location.reload());

  const secret = secretOf(location.hash.slice(1));
  if (secret === null) unusable(false);
  else if (!window.isSecureContext || !window.crypto || !crypto.subtle) {
    show("insecure", "This page needs HTTPS", false);
  } else invite(secret);
})();
